#!lua flags=allow-oom
-- Dates the renewals of holds from now: another clock had dated them. KEYS: inflight. ARGV: the time, ms, then of each
-- hold its id and its progress as it was read; a hold that was renewed since stays unchanged.
for place = 2, #ARGV, 2 do
  local found = redis.call('HMGET', KEYS[1], ARGV[place], PROGRESS .. ARGV[place])
  if found[1] and (found[2] or '') == ARGV[place + 1] then
    local rest = string.match(ARGV[place + 1], '^%d+(.*)$') or ' 0 0 0'
    redis.call('HSET', KEYS[1], PROGRESS .. ARGV[place], ARGV[1] .. rest)
  end
end
return 1
