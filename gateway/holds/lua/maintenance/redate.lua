#!lua flags=allow-oom
-- Sets the time of holds' last renewals, which another clock had dated, to now. KEYS: inflight. ARGV: the time, ms, then for
-- each hold its id and its progress as the caller read it; a hold that was renewed since stays unchanged.
for place = 2, #ARGV, 2 do
  local found = redis.call('HMGET', KEYS[1], ARGV[place], PROGRESS .. ARGV[place])
  if found[1] and (found[2] or '') == ARGV[place + 1] then
    local rest = string.match(ARGV[place + 1], '^%d+(.*)$') or ' 0 0 0'
    redis.call('HSET', KEYS[1], PROGRESS .. ARGV[place], ARGV[1] .. rest)
  end
end
return 1
