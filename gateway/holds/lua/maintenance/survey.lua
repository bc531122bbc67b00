-- Looks at many buckets at once; changes nothing. KEYS: of each bucket its state, its holds, its records that wait for the
-- ledger, and the holds of the version before. Replies of each: the generation and the newest record of the ledger as the
-- bucket has them, the number of fields of its holds, of records that wait, and of holds of the version before.
local found = {}
for place = 1, #KEYS, 4 do
  local known = redis.call('HMGET', KEYS[place], 'generation', 'tide')
  found[#found + 1] = {known[1], known[2], redis.call('HLEN', KEYS[place + 1]), redis.call('XLEN', KEYS[place + 2]),
    redis.call('ZCARD', KEYS[place + 3])}
end
return found
