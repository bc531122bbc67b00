#!lua flags=allow-oom
-- Writes a record unless Redis has a later revision of it. KEYS: record. ARGV: rev, body.
if whole(redis.call('HGET', KEYS[1], 'rev')) > whole(ARGV[1]) then return 0 end
redis.call('HSET', KEYS[1], 'rev', ARGV[1], 'body', ARGV[2])
return 1
