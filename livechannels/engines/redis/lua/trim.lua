-- Keys: 1 position record, 2 stream. Arguments: the last offset to forget, and its epoch or '' for any.
local epoch = redis.call('HGET', KEYS[1], 'e')
if ARGV[2] ~= '' and epoch ~= ARGV[2] then return 0 end
redis.call('XTRIM', KEYS[2], 'MINID', '0-' .. string.format('%.0f', tonumber(ARGV[1]) + 1))
if epoch then redis.call('HSET', KEYS[1], 'n', 0) end
return 1
