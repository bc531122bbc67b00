-- Reads the state of many buckets at once; changes nothing. KEYS: for each bucket its state, its holds, its records that wait
-- for the ledger, and the holds of the previous version. Replies for each bucket: the generation and the ledger's newest
-- record as the bucket has them, and the numbers of fields in its holds, of waiting records, and of holds of the previous
-- version.
local found = {}
for place = 1, #KEYS, 4 do
  local known = redis.call('HMGET', KEYS[place], 'generation', 'tide')
  found[#found + 1] = {known[1], known[2], redis.call('HLEN', KEYS[place + 1]), redis.call('XLEN', KEYS[place + 2]),
    redis.call('ZCARD', KEYS[place + 3])}
end
return found
