-- Key: the lease. Returns token, holder, session, ms left, begin; nothing if nobody holds it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('HMGET', KEYS[1], 't', 'h', 's', 'x', 'b', 'l')
local left = lease[4] and tonumber(lease[4]) - now or 0
if not lease[3] or lease[3] == '' or left <= 0 or left > tonumber(lease[6]) then return {} end
return { lease[1], lease[2], lease[3], left, lease[5] }
