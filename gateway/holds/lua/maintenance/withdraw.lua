#!lua flags=allow-oom
-- Makes sure that a reservation whose reply was lost is refused if it still arrives. KEYS: inflight, settled.
-- ARGV: the hold's id, and the caller's time. Replies 'known' where the hold exists and has to be settled like any other
-- hold; else 'withdrawn'.
if redis.call('HEXISTS', KEYS[1], ARGV[1]) == 1 then return 'known' end
local mark = struct.pack(DONE, 0, NONE, time_ms(ARGV[2]))
redis.call('HSETNX', KEYS[2], ARGV[1], mark .. mark .. mark)
return 'withdrawn'
