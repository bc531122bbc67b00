-- Renews a worker's holds of one bucket, with the tokens so far. KEYS: state, holds, then each hold.
-- ARGV: generation, lease_ms, then id and tokens so far of each. Replies what became of each:
-- 'live', 'suspect' or 'unknown'; or {'rebuild'}.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return {'rebuild'} end
local lease_until = written(now_ms() + tonumber(ARGV[2]))
local verdicts = {}
for place = 3, #KEYS do
  local state = redis.call('HGET', KEYS[place], 'state')
  local id, sofar = ARGV[2 * place - 3], ARGV[2 * place - 2]
  if state == 'live' then
    redis.call('HSET', KEYS[place], 'sofar', sofar)
  end
  if state then redis.call('ZADD', KEYS[2], 'XX', lease_until, id) end
  verdicts[place - 2] = state or 'unknown'
end
return verdicts
