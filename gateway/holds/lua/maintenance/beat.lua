#!lua flags=allow-oom
-- Says that a process is alive, also on a full server: it renews and settles there. KEYS: heartbeat. ARGV: for how long, ms.
redis.call('SET', KEYS[1], '1', 'PX', ARGV[1])
return 1
