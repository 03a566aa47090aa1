-- Key: the lease. Arguments: session, token. Returns 1 if it was held; the token stays, so that the next is higher.
local lease = redis.call('HMGET', KEYS[1], 's', 't')
if lease[1] ~= ARGV[1] or lease[2] ~= ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], 's', '', 'x', 0)
return 1
