-- Removes fields from many hashes at once. KEYS: the hashes. ARGV: the fields.
for _, name in ipairs(KEYS) do redis.call('HDEL', name, unpack(ARGV)) end
