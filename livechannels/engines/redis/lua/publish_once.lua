-- Key 4: the lease (unused without a session). Key 5: what this idempotency key returned before.
-- Arguments 13 and 14: session and token or '', 15: how long the key is remembered, in ms.
if ARGV[13] ~= '' then
  -- include fence.lua
end
local before = redis.call('GET', KEYS[5])
if before then return 'REPEATED ' .. before end
-- include store.lua
redis.call('SET', KEYS[5], position, 'PX', ARGV[15])
-- include answer.lua
