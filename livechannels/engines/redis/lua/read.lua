-- Keys: 1 position record, 2 stream. Arguments: 1 offset to read after, 2 limit (-1 all), 3 "1" for newest first (then
-- those before that offset, all for 0),
-- 4 "1" to create the topic, 5 a name for a new epoch, 6 "1" to compare replication ids, 7 ms to keep the record
-- from now (0 leaves it), 8 the epoch in which a node witnessed that offset, or ''.
-- Returns epoch, offset, epochs, time in ms, entries.
local replid = false
if ARGV[6] == '1' then
  local info = redis.call('INFO', 'replication')
  if string.find(info, 'role:slave', 1, true) then
    return redis.error_reply('READONLY positions are read from a master only')
  end
  local at = string.find(info, 'master_replid:', 1, true)
  replid = string.sub(info, at + 14, at + 53)
end
local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'r', 'b')
local time = redis.call('TIME')
local now = string.format('%.0f', time[1] * 1000 + math.floor(time[2] / 1000))
local epoch, offset, record = meta[1], meta[2], meta[4]
local since = tonumber(ARGV[1])
if not epoch then
  if ARGV[4] ~= '1' then return { '', 0, '', now, {} } end
  redis.call('DEL', KEYS[2])
  epoch, offset, record = ARGV[5], 0, ARGV[5] .. ':0'
  redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0, 'r', replid or '', 'b', record)
  redis.call('PEXPIRE', KEYS[1], math.max(tonumber(ARGV[7]), 60000))
elseif (replid and replid ~= meta[3]) or (not replid and ARGV[8] == epoch and tonumber(offset) < since) then
  epoch = ARGV[5]
  local kept = {}
  for part in string.gmatch(record .. ' ' .. epoch .. ':' .. offset, '%S+') do kept[#kept + 1] = part end
  record = table.concat(kept, ' ', math.max(1, #kept - 7))
  redis.call('HSET', KEYS[1], 'e', epoch, 'r', replid or '', 'b', record)
end
if ARGV[7] ~= '0' and redis.call('PTTL', KEYS[1]) < tonumber(ARGV[7]) then
  redis.call('PEXPIRE', KEYS[1], ARGV[7])
end
local limit, entries = tonumber(ARGV[2]), {}
if limit ~= 0 and ARGV[3] == '1' then
  local last = since > 0 and '0-' .. string.format('%.0f', since - 1) or '+'
  entries = limit < 0 and redis.call('XREVRANGE', KEYS[2], last, '-')
    or redis.call('XREVRANGE', KEYS[2], last, '-', 'COUNT', limit)
elseif limit ~= 0 and tonumber(offset) > since then
  local first = '0-' .. string.format('%.0f', since + 1)
  entries = limit < 0 and redis.call('XRANGE', KEYS[2], first, '+')
    or redis.call('XRANGE', KEYS[2], first, '+', 'COUNT', limit)
end
return { epoch, offset, record, now, entries }
