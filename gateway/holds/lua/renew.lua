#!lua flags=allow-oom
-- Renews a worker's holds of one bucket, with the tokens so far. KEYS: state, inflight.
-- ARGV: generation, the worker's time, then for each hold its id, its tokens so far, and '1' where its input is owed.
-- Replies the state of each hold: 'live', 'suspect' or 'unknown'; or {'rebuild'}.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return {'rebuild'} end
local now = written(time_ms(ARGV[2]))
local verdicts, progress = {}, {}
for place = 3, #ARGV, 3 do
  local found = redis.call('HMGET', KEYS[2], ARGV[place], PROGRESS .. ARGV[place])
  verdicts[#verdicts + 1] = found[1] and string.match(found[1], '^%a+') or 'unknown'
  progress[#verdicts] = found[2] or ''
end
for place, verdict in ipairs(verdicts) do
  local id, sofar, owes = ARGV[3 * place], ARGV[3 * place + 1], ARGV[3 * place + 2]
  if owes ~= '1' then owes = string.match(progress[place], '^%d+ %d+ ([01])') or '0' end
  if verdict == 'live' then
    redis.call('HSET', KEYS[2], PROGRESS .. id, table.concat({now, sofar, owes, '0'}, ' '))
  elseif verdict == 'suspect' then
    redis.call('HSET', KEYS[2], PROGRESS .. id, now .. string.match(progress[place], '^%d+(.*)$'))
  end
end
return verdicts
