#!lua flags=allow-oom
-- Writes a heartbeat, also on a full server, where the process still renews and settles. KEYS: heartbeat. ARGV: for how
-- long, ms.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
