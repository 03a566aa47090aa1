-- Key 4: the lease (unused without a session). Key 5: what this idempotency key returned before.
-- Arguments 13 and 14: session and token or '', 15: how long the key is remembered, in ms.
if ARGV[13] ~= '' then
  -- include fence.lua
end
local before = redis.call('GET', KEYS[5])
if before then return 'REPEATED ' .. before end
-- Without history PUBLISH would be the first to write, and memory that is full refuse to remember what is out.
if ARGV[3] == '0' then redis.call('SET', KEYS[5], '- 0', 'PX', ARGV[15]) end
-- include store.lua
if ARGV[3] ~= '0' then redis.call('SET', KEYS[5], position, 'PX', ARGV[15]) end
-- include answer.lua
