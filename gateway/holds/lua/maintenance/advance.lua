#!lua flags=allow-oom
-- Raises a number, never lowers it, and leaves it where it has fallen below what it must have been. A full server takes
-- it, too: without it the ledger could not empty the streams.
-- KEYS: hash. ARGV: field, number, and what the number is at least. Replies what it was.
local was = whole(redis.call('HGET', KEYS[1], ARGV[1]))
if was >= whole(ARGV[3]) and was < whole(ARGV[2]) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return written(was)
