-- The answer to a publish was lost: look for its id (the first 11 bytes of the payload) in the history first.
-- Key 4: the lease. Arguments 13 and 14: session and token or ''.
local id, current = string.sub(ARGV[2], 1, 11), redis.call('HGET', KEYS[1], 'e')
for _, entry in ipairs(current and redis.call('XREVRANGE', KEYS[2], '+', '-', 'COUNT', 1000) or {}) do
  if string.sub(entry[2][2], 1, 11) == id then
    local position, plain = current .. ' ' .. string.sub(entry[1], 3), redis.call('HGET', KEYS[1], 'p')
    -- include answer.lua
  end
end
if ARGV[13] ~= '' then
  -- include fence.lua
end
-- include store.lua
-- include answer.lua
