-- Keys: 1 the list, 2 what this reader was handed last. Arguments: 1 how many items at most, 2 the number of this
-- request of the reader, 3 ms to remember it. Returns the bodies of the oldest items that have not expired.
-- Asked with the last number again, the answer was lost: what it held goes back first. A lower number comes too late.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local number, kept = tonumber(ARGV[2]), redis.call('GET', KEYS[2])
local handed = kept and cmsgpack.unpack(kept) or { 0 }
if number < handed[1] then return {} end
if number == handed[1] and #handed > 1 then
  for at = #handed, 2, -1 do redis.call('LPUSH', KEYS[1], handed[at]) end
  local left = tonumber(string.sub(handed[#handed], 1, 13)) - now
  if redis.call('PTTL', KEYS[1]) < left then redis.call('PEXPIRE', KEYS[1], left) end
end
local found = {}
handed = { number }
while #found < tonumber(ARGV[1]) do
  local item = redis.call('LPOP', KEYS[1])
  if not item then break end
  if tonumber(string.sub(item, 1, 13)) > now then
    found[#found + 1] = string.sub(item, 14)
    handed[#handed + 1] = item
  end
end
-- A store out of memory refuses this to who took nothing; it shall not keep readers from emptying queues.
redis.pcall('SET', KEYS[2], cmsgpack.pack(handed), 'PX', ARGV[3])
return found
