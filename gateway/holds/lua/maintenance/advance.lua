#!lua flags=allow-oom
-- Raises a number and never lowers it; a number that has fallen below its least value stays unchanged. The script also runs
-- on a full server: without it the ledger could not empty the streams.
-- KEYS: hash. ARGV: field, number, and the least value that the field must have had. Replies the old value.
local was = whole(redis.call('HGET', KEYS[1], ARGV[1]))
if was >= whole(ARGV[3]) and was < whole(ARGV[2]) then
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
end
return written(was)
