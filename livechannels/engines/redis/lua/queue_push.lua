-- Keys: 1 the list, 2 the mark of this push. Arguments: 1 pub/sub name, 2 body, 3 capacity, 4 time to live in ms,
-- 5 PUBLISH or SPUBLISH, 6 ms to keep the mark, by which a repeat after a lost answer is known.
-- An item is its deadline in ms (13 digits) and its body.
if redis.call('EXISTS', KEYS[2]) == 1 then return 1 end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[3]) then
  for _, item in ipairs(redis.call('LRANGE', KEYS[1], 0, -1)) do
    if tonumber(string.sub(item, 1, 13)) <= now then redis.call('LREM', KEYS[1], 1, item) end
  end
  if redis.call('LLEN', KEYS[1]) >= tonumber(ARGV[3]) then return 0 end
end
redis.call('RPUSH', KEYS[1], string.format('%013.0f', now + tonumber(ARGV[4])) .. ARGV[2])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[4]) then redis.call('PEXPIRE', KEYS[1], ARGV[4]) end
redis.call('SET', KEYS[2], 1, 'PX', ARGV[6])
redis.call(ARGV[5], ARGV[1], '1 - 0 ')
return 1
