-- Frees an Idempotency-Key whose call kept no answer. KEYS: once. ARGV: call.
if redis.call('HGET', KEYS[1], 'call') == ARGV[1] and redis.call('HEXISTS', KEYS[1], 'answer') == 0 then
  redis.call('DEL', KEYS[1])
end
return 1
