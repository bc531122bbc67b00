-- Begins a window with what is used of it already; one that was begun before stays as it is. KEYS: window. ARGV: amounts.
if redis.call('EXISTS', KEYS[1]) == 0 then redis.call('HSET', KEYS[1], 'amounts', ARGV[1]) end
-- Calls that are running now are settled in the window that they were admitted to.
redis.call('HSET', KEYS[1], 'carried', '1')
return 1
