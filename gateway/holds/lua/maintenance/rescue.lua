#!lua flags=allow-oom
-- Copies the holds of buckets that are about to be rewritten, for as long as the buckets lack them: the process that rebuilds
-- them may be killed. KEYS: for each bucket its holds and its rescued holds. Replies for each bucket all copied fields,
-- including those of a rebuild that was broken off.
local copied = {}
for place = 1, #KEYS, 2 do
  local found = redis.call('HGETALL', KEYS[place])
  for field = 1, #found, 2 do redis.call('HSET', KEYS[place + 1], found[field], found[field + 1]) end
  copied[#copied + 1] = redis.call('HGETALL', KEYS[place + 1])
end
return copied
