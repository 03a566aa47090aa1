-- Keys: 1 position record, 2 stream. Argument: the last offset to forget.
redis.call('XTRIM', KEYS[2], 'MINID', '0-' .. string.format('%.0f', tonumber(ARGV[1]) + 1))
if redis.call('EXISTS', KEYS[1]) == 1 then redis.call('HSET', KEYS[1], 'n', 0) end
return 1
