#!lua flags=allow-oom
-- Copies the holds of a bucket that is about to be rewritten, for as long as the bucket lacks them: the process that rebuilds
-- it may be killed. KEYS: inflight, rescued. Replies all copied fields, including those of a rebuild that was broken off.
local found = redis.call('HGETALL', KEYS[1])
for place = 1, #found, 2 do redis.call('HSET', KEYS[2], found[place], found[place + 1]) end
return redis.call('HGETALL', KEYS[2])
