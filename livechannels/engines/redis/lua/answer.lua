-- Part of every publishing script: returns `position`, and where the group has `plain` members, their names too.
if plain then
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local names = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. string.format('%.0f', now), '+inf')
  table.insert(names, 1, position)
  return names
end
return position
