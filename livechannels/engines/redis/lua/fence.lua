-- Part of the scripts that publish for a leader. Key 4: the lease. Arguments 13 and 14: session and token, compared
-- for equality. A remaining time above the lease's own time to live means that the clock was set back: expired.
local lease = redis.call('HMGET', KEYS[4], 's', 't', 'x', 'l')
if lease[1] ~= ARGV[13] or lease[2] ~= ARGV[14] then return 'FENCED' end
local time = redis.call('TIME')
local left = lease[3] - time[1] * 1000 - time[2] / 1000
if left <= 0 or left > tonumber(lease[4]) then return 'FENCED' end
