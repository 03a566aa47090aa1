-- Keys: 1 the list, 2 what this reader was handed last. Arguments: 1 pub/sub name, 2 time to live in ms,
-- 3 PUBLISH or SPUBLISH, 4 the number of this request of the reader, 5 ms to remember it, then bodies, oldest first.
local kept = redis.call('GET', KEYS[2])
if kept and tonumber(ARGV[4]) <= cmsgpack.unpack(kept)[1] then return 0 end
local time = redis.call('TIME')
local deadline = string.format('%013.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]))
for at = #ARGV, 6, -1 do redis.call('LPUSH', KEYS[1], deadline .. ARGV[at]) end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
redis.call('SET', KEYS[2], cmsgpack.pack({ tonumber(ARGV[4]) }), 'PX', ARGV[5])
redis.call(ARGV[3], ARGV[1], '1 - 0 ')
return 1
