#!lua flags=allow-oom
-- Keeps the holds of a bucket that is about to be written anew, until they stand in it again: whoever rebuilds may be killed.
-- KEYS: inflight, rescued. Replies all that is kept, those of a rebuild that was broken off as well.
local found = redis.call('HGETALL', KEYS[1])
for place = 1, #found, 2 do redis.call('HSET', KEYS[2], found[place], found[place + 1]) end
return redis.call('HGETALL', KEYS[2])
