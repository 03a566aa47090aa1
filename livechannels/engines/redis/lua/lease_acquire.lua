-- Key: the lease: s session, t token, x expiry in ms, l time to live, h holder, b begin in ms.
-- Arguments: 1 session, 2 holder, 3 time to live in ms. Returns token or '', holder, session, ms left, begin.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local lease = redis.call('HMGET', KEYS[1], 's', 't', 'x', 'l', 'h', 'b')
local left = lease[3] and tonumber(lease[3]) - now or 0
local held = lease[1] and lease[1] ~= '' and left > 0 and left <= tonumber(lease[4])
if held and lease[1] ~= ARGV[1] then
  return { '', lease[5], lease[1], left, lease[6] }
end
local token, begin = lease[2], lease[6]
if not held then
  -- Rises even if the record was lost or the clock went back; equality on the session is what makes it safe.
  local micros = string.format('%.0f', time[1] * 1000000 + time[2])
  local after = lease[2] and string.format('%.0f', tonumber(lease[2]) + 1) or '0'
  token = tonumber(after) > tonumber(micros) and after or micros
  begin = string.format('%.0f', now)
end
redis.call('HSET', KEYS[1], 's', ARGV[1], 't', token, 'x', string.format('%.0f', now + tonumber(ARGV[3])),
  'l', ARGV[3], 'h', ARGV[2], 'b', begin)
redis.call('PEXPIRE', KEYS[1], 86400000)
return { token, ARGV[2], ARGV[1], tonumber(ARGV[3]), begin }
