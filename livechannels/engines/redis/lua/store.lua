-- Part of every publishing script: stores the message, publishes it, leaves its `position` and whether there are
-- `plain` members. Keys: 1 position record, 2 stream, 3 plain members of the group.
-- Arguments: 1 pub/sub name, 2 payload, 3 size (0 keeps nothing), 4 time to live of the stream in ms,
-- 5 of the record, 6 a name for a new epoch, 7 "1" to compare replication ids, 8 PUBLISH or SPUBLISH,
-- 9 "1" to renew the times to live, 10 and 11 the highest epoch and offset the publisher has seen, 12 byte limit.
--
-- The commonest script of all. What it avoids, dearest first: commands (about 1 us each), strings as long as the
-- payload (Redis 7 hashes every byte: 1.3 us for 1 kB), numbers made into strings, functions (made at every call).
local position, plain = '- 0', false
if ARGV[3] ~= '0' then
  local record, renew = KEYS[1], ARGV[9] == '1'
  redis.call('HINCRBY', record, 'o', '1')
  local meta = redis.call('HMGET', record, 'e', 'o', 'r', 'p')
  local epoch, offset, replid = meta[1], meta[2], meta[3]
  plain = meta[4]
  if ARGV[7] == '1' then
    local info = redis.call('INFO', 'replication')
    local at = string.find(info, 'master_replid:', 1, true)
    replid = string.sub(info, at + 14, at + 53)
  end
  if not epoch then
    -- A lost record with a surviving stream would refuse every later entry.
    redis.call('DEL', KEYS[2])
    epoch, offset, renew = ARGV[6], '1', true
    redis.call('HSET', record, 'e', epoch, 'o', offset, 'r', replid or '', 'b', epoch .. ':0')
  elseif replid ~= meta[3] or (ARGV[10] == epoch and tonumber(offset) <= tonumber(ARGV[11])) then
    epoch, renew = ARGV[6], true
    local began, kept = string.format('%.0f', offset - 1), {}
    for part in string.gmatch(redis.call('HGET', record, 'b') .. ' ' .. epoch .. ':' .. began, '%S+') do
      kept[#kept + 1] = part
    end
    redis.call('HSET', record, 'e', epoch, 'r', replid or '', 'b', table.concat(kept, ' ', math.max(1, #kept - 7)))
  end
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], '0-' .. offset, 'd', ARGV[2])
  if renew or offset == '1' then
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
    if redis.call('PTTL', record) < tonumber(ARGV[5]) then redis.call('PEXPIRE', record, ARGV[5]) end
  end
  if ARGV[12] ~= '0' and redis.call('HINCRBY', record, 'n', #ARGV[2]) > tonumber(ARGV[12]) then
    redis.call('XTRIM', KEYS[2], 'MAXLEN', math.max(math.floor(redis.call('XLEN', KEYS[2]) / 2), 1))
    redis.call('HSET', record, 'n', math.floor(tonumber(ARGV[12]) / 2))
  end
  position = epoch .. ' ' .. offset
end
redis.call(ARGV[8], ARGV[1], '1 ' .. position .. ' ' .. ARGV[2])
