-- Key: the list. Arguments: 1 pub/sub name, 2 time to live in ms, 3 PUBLISH or SPUBLISH, then bodies, oldest first.
local time = redis.call('TIME')
local deadline = string.format('%013.0f', time[1] * 1000 + math.floor(time[2] / 1000) + tonumber(ARGV[2]))
for at = #ARGV, 4, -1 do redis.call('LPUSH', KEYS[1], deadline .. ARGV[at]) end
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[2]) then redis.call('PEXPIRE', KEYS[1], ARGV[2]) end
redis.call(ARGV[3], ARGV[1], '1 - 0 ')
return 1
