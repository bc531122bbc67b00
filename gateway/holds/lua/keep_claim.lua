#!lua flags=allow-oom
-- Extends the claim of a live call on its Idempotency-Key, and claims the key again where another clock let the claim expire.
-- KEYS: once, inflight. ARGV: digest of the body, call, for how long, ms. A kept answer or another call's claim stays
-- unchanged.
local once = redis.call('HMGET', KEYS[1], 'call', 'answer')
if once[2] or (once[1] and once[1] ~= ARGV[2]) then return 0 end
if redis.call('HEXISTS', KEYS[2], ARGV[2]) == 0 then return 0 end
if not once[1] then redis.call('HSET', KEYS[1], 'body', ARGV[1], 'call', ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1
