-- Keys: 1 values by member, 2 members by end of stay. Argument: member. Returns 1 if it stood there.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local until_then = redis.call('ZSCORE', KEYS[2], ARGV[1])
redis.call('HDEL', KEYS[1], ARGV[1])
redis.call('ZREM', KEYS[2], ARGV[1])
if until_then and tonumber(until_then) > now then return 1 end
return 0
