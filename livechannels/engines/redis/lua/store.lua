-- Shared beginning of every publishing script. Keys: 1 position record, 2 stream, 3 plain members of the group.
-- Arguments: 1 pub/sub name, 2 payload, 3 size (0 keeps nothing), 4 time to live of the stream in ms,
-- 5 of the record, 6 a name for a new epoch, 7 "1" to compare replication ids, 8 PUBLISH or SPUBLISH,
-- 9 "1" to renew the times to live, 10 and 11 the highest epoch and offset the publisher has seen, 12 byte limit.
local function answer(position)
  if not redis.call('HGET', KEYS[1], 'p') then return position end
  local time = redis.call('TIME')
  local now = time[1] * 1000 + math.floor(time[2] / 1000)
  local plain = redis.call('ZRANGEBYSCORE', KEYS[3], '(' .. string.format('%.0f', now), '+inf')
  table.insert(plain, 1, position)
  return plain
end

local function store()
  if ARGV[3] == '0' then
    redis.call(ARGV[8], ARGV[1], '1 - 0 ' .. ARGV[2])
    return '- 0'
  end
  local meta = redis.call('HMGET', KEYS[1], 'e', 'o', 'r', 'b', 'p')
  local epoch, replid, renew = meta[1], meta[3], ARGV[9] == '1'
  if ARGV[7] == '1' then
    local info = redis.call('INFO', 'replication')
    local at = string.find(info, 'master_replid:', 1, true)
    replid = string.sub(info, at + 14, at + 53)
  end
  if not epoch then
    -- A lost record with a surviving stream would refuse every later entry.
    redis.call('DEL', KEYS[2])
    epoch, renew = ARGV[6], true
    redis.call('HSET', KEYS[1], 'e', epoch, 'o', 0, 'r', replid or '', 'b', epoch .. ':0')
  elseif replid ~= meta[3] or (ARGV[10] == epoch and tonumber(meta[2]) < tonumber(ARGV[11])) then
    epoch, renew = ARGV[6], true
    local record, kept = meta[4] .. ' ' .. epoch .. ':' .. meta[2], {}
    for part in string.gmatch(record, '%S+') do kept[#kept + 1] = part end
    record = table.concat(kept, ' ', math.max(1, #kept - 7))
    redis.call('HSET', KEYS[1], 'e', epoch, 'r', replid or '', 'b', record)
  end
  local offset = redis.call('HINCRBY', KEYS[1], 'o', 1)
  redis.call('XADD', KEYS[2], 'MAXLEN', ARGV[3], '0-' .. offset, 'd', ARGV[2])
  if renew then
    redis.call('PEXPIRE', KEYS[2], ARGV[4])
    if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[5]) then
      redis.call('PEXPIRE', KEYS[1], ARGV[5])
    end
  end
  if ARGV[12] ~= '0' and redis.call('HINCRBY', KEYS[1], 'n', #ARGV[2]) > tonumber(ARGV[12]) then
    local half = math.floor(redis.call('XLEN', KEYS[2]) / 2)
    redis.call('XTRIM', KEYS[2], 'MAXLEN', math.max(half, 1))
    redis.call('HSET', KEYS[1], 'n', math.floor(tonumber(ARGV[12]) / 2))
  end
  local position = epoch .. ' ' .. offset
  redis.call(ARGV[8], ARGV[1], '1 ' .. position .. ' ' .. ARGV[2])
  return meta[5] and answer(position) or position
end

-- Whether the lease at the given key is held by that session and token. A remaining time above the lease's
-- own time to live means that the clock was set back: expired.
local function leads(key, session, token)
  local lease = redis.call('HMGET', key, 's', 't', 'x', 'l')
  if lease[1] ~= session or lease[2] ~= token then return false end
  local time = redis.call('TIME')
  local left = tonumber(lease[3]) - (time[1] * 1000 + math.floor(time[2] / 1000))
  return left > 0 and left <= tonumber(lease[4])
end
