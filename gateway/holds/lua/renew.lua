#!lua flags=allow-oom
-- Renews a worker's holds of one bucket, with the tokens so far. KEYS: state, holds, then each hold.
-- ARGV: generation, lease_ms, the worker's time, then of each its id, its tokens so far, and '1' where its input is owed.
-- Replies what became of each: 'live', 'suspect' or 'unknown'; or {'rebuild'}.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return {'rebuild'} end
local lease_until = written(time_ms(tonumber(ARGV[3])) + tonumber(ARGV[2]))
local verdicts = {}
for place = 3, #KEYS do verdicts[place - 2] = redis.call('HGET', KEYS[place], 'state') or 'unknown' end
for place = 3, #KEYS do
  local id, sofar, owes, verdict = ARGV[3 * place - 5], ARGV[3 * place - 4], ARGV[3 * place - 3], verdicts[place - 2]
  if verdict ~= 'unknown' then redis.call('ZADD', KEYS[2], 'XX', lease_until, id) end
  if verdict == 'live' then redis.call('HSET', KEYS[place], 'sofar', sofar) end
  if verdict == 'live' and owes == '1' then redis.call('HSET', KEYS[place], 'owes_input', '1') end
end
return verdicts
