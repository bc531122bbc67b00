-- Removes the window of a period that is over and in which nothing is held; returns how many were removed.
-- KEYS: window. ARGV: 1 where a period of any kind that began when the window began is over.
-- A window that a change of the customer's period began may have a longer period than the caller read from the customer.
local _, _, _, held, _, spend_held = window_at(KEYS[1])
if held > 0 or spend_held > 0 then return 0 end
if ARGV[1] ~= '1' and redis.call('HEXISTS', KEYS[1], 'carried') == 1 then return 0 end
return redis.call('UNLINK', KEYS[1])
