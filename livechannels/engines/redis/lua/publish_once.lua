-- Key 4: the lease (unused without a session). Key 5: what this idempotency key returned before.
-- Arguments 13 and 14: session and token or '', 15: how long the key is remembered, in ms.
if ARGV[13] ~= '' and not leads(KEYS[4], ARGV[13], ARGV[14]) then return 'FENCED' end
local before = redis.call('GET', KEYS[5])
if before then return 'REPEATED ' .. before end
local answer = store()
redis.call('SET', KEYS[5], type(answer) == 'table' and answer[1] or answer, 'PX', ARGV[15])
return answer
