#!lua flags=allow-oom
-- Rewrites a hold that a worker of the previous version left behind into the present form. KEYS: the set of holds, the
-- hold, inflight. ARGV: the hold's id.
local h = redis.call('HMGET', KEYS[2], 'state', 'owner', 'tokens', 'money', 'input', 'first', 'charged', 'window',
  'deadline', 'admitted', 'grant', 'facts', 'sofar', 'owes_input', 'billed')
local lease_until = redis.call('ZSCORE', KEYS[1], ARGV[1])
local is_there = redis.call('HEXISTS', KEYS[3], ARGV[1]) == 1
if h[1] and not is_there then
  local hold = struct.pack(HOLD, h[1], h[3], h[4], h[5], h[6], h[7], h[9], h[10], h[11], h[11], 0, NONE)
  redis.call('HSET', KEYS[3], ARGV[1], hold .. h[2] .. '\0' .. h[8] .. '\0' .. h[12], PROGRESS .. ARGV[1],
    table.concat({h[10], whole(h[13]), h[14] == '1' and '1' or '0', whole(h[15])}, ' '))
end
redis.call('DEL', KEYS[2])
if lease_until then redis.call('ZREM', KEYS[1], ARGV[1]) end
return 1
