-- Key: the lease. Arguments: session, token, time to live in ms. Returns 1 if it was still held.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('HMGET', KEYS[1], 's', 't', 'x', 'l')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return 0 end
local left = tonumber(lease[3]) - now
if left <= 0 or left > tonumber(lease[4]) then return 0 end
redis.call('HSET', KEYS[1], 'x', string.format('%.0f', now + tonumber(ARGV[3])), 'l', ARGV[3])
redis.call('PEXPIRE', KEYS[1], 86400000)
return 1
