-- Reads windows of one bucket, and every hold that is open there, at one moment; changes nothing.
-- KEYS: state, holds, then windows, then holds. ARGV: generation, how many windows, then the id of each hold.
-- Replies {'rebuild'}; {'changed'} where other holds are open by now; or {'counted', then of each window used, held,
-- spend_used, spend_held, tokens_max and spend_max, then of each hold its window, tokens and money}.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return {'rebuild'} end
local windows, open = tonumber(ARGV[2]), #ARGV - 2
if redis.call('ZCARD', KEYS[2]) ~= open then return {'changed'} end
for place = 1, open do
  if not redis.call('ZSCORE', KEYS[2], ARGV[place + 2]) then return {'changed'} end
end
local counted = {'counted'}
for place = 1, windows do
  counted[#counted + 1] =
    redis.call('HMGET', KEYS[place + 2], 'used', 'held', 'spend_used', 'spend_held', 'tokens_max', 'spend_max')
end
for place = 1, open do
  counted[#counted + 1] = redis.call('HMGET', KEYS[windows + place + 2], 'window', 'tokens', 'money')
end
return counted
