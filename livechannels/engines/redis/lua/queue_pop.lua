-- Key: the list. Argument: how many items at most. Returns the bodies of the oldest that have not expired.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local found = {}
while #found < tonumber(ARGV[1]) do
  local item = redis.call('LPOP', KEYS[1])
  if not item then break end
  if tonumber(string.sub(item, 1, 13)) > now then found[#found + 1] = string.sub(item, 14) end
end
return found
