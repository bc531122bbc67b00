-- Puts rewritten buckets in force. KEYS: for each bucket its state and its rescued holds. ARGV: the generation, then for each
-- bucket the number of its newest record in the ledger.
for place = 1, #KEYS, 2 do
  redis.call('HDEL', KEYS[place], 'rebuilding')
  redis.call('UNLINK', KEYS[place + 1])
  redis.call('HSET', KEYS[place], 'generation', ARGV[1], 'tide', ARGV[(place + 3) / 2])
end
