-- The answer to a publish was lost: look for its id (the first 11 bytes of the payload) in the history first.
-- Key 4: the lease. Arguments 13 and 14: session and token or ''.
local id, epoch = string.sub(ARGV[2], 1, 11), redis.call('HGET', KEYS[1], 'e')
for _, entry in ipairs(epoch and redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1000) or {}) do
  if string.sub(entry[2][2], 1, 11) == id then return answer(epoch .. ' ' .. string.sub(entry[1], 3)) end
end
if ARGV[13] ~= '' and not leads(KEYS[4], ARGV[13], ARGV[14]) then return 'FENCED' end
return store()
