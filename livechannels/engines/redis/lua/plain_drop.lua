-- Keys: 1 the group's position record, 2 its plain members. Argument: channel.
redis.call('ZREM', KEYS[2], ARGV[1])
if redis.call('EXISTS', KEYS[2]) == 0 then redis.call('HDEL', KEYS[1], 'p') end
return 1
