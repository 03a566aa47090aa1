-- Part of the scripts that publish for a leader. Key 4: the lease. Arguments 13 and 14: session and token, compared
-- for equality. Each acquire and renewal keeps the record for a day, so what is missing of the day has passed since:
-- as much as the lease's own time to live means expired, less than nothing that the clock was set back, which ends
-- it too. The same as its field `x` against TIME, for a third of the cost.
local lease = redis.call('HMGET', KEYS[4], 's', 't', 'l')
if lease[1] ~= ARGV[13] or lease[2] ~= ARGV[14] then return 'FENCED' end
local passed = 86400000 - redis.call('PTTL', KEYS[4])
if passed < 0 or passed >= tonumber(lease[3]) then return 'FENCED' end
