#!lua flags=allow-oom
-- Sees to it that a reservation whose reply was lost is refused if it is still to come. KEYS: hold, mark.
-- Replies 'known' where the hold was made, and is to be settled like any other; else 'withdrawn'.
if redis.call('EXISTS', KEYS[1]) == 1 then return 'known' end
redis.call('SET', KEYS[2], kept({'done', '0', '', '0'}), 'PX', DAY_MS, 'NX')
return 'withdrawn'
