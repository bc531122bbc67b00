-- Claims an Idempotency-Key for a call. KEYS: once. ARGV: digest of the body, call, lease_ms.
-- Replies {'claimed'}, {'running'}, {'kept', answer}, or {'other'} where the key was used with another body.
local once = redis.call('HMGET', KEYS[1], 'body', 'call', 'answer')
if not once[1] then
  redis.call('HSET', KEYS[1], 'body', ARGV[1], 'call', ARGV[2])
  redis.call('PEXPIRE', KEYS[1], ARGV[3])
  return {'claimed'}
end
if once[1] ~= ARGV[1] then return {'other'} end
if once[3] then return {'kept', once[3]} end
if once[2] == ARGV[2] then return {'claimed'} end
return {'running'}
