#!lua flags=allow-oom
-- Raises numbers and never lowers one; a number that has fallen below its least value stays unchanged. The script also runs
-- on a full server: without it the ledger could not empty the streams.
-- KEYS: hashes. ARGV: for each hash a field, a number, and the least value that the field must have had. Replies the old
-- values.
local before = {}
for place, name in ipairs(KEYS) do
  local field, number, least = ARGV[3 * place - 2], ARGV[3 * place - 1], ARGV[3 * place]
  local was = whole(redis.call('HGET', name, field))
  if was >= whole(least) and was < whole(number) then
    redis.call('HSET', name, field, number)
  end
  before[place] = written(was)
end
return before
