-- Keeps refusals of a customer, the newest first. Where the bucket then has more refusals than it may have, complete logs are
-- dropped, beginning with the customer whose last refusal is oldest. KEYS: the customer's log, the number of refusals kept of
-- each customer of the bucket ('' is their sum), and when each was last refused. ARGV: the customer, the time, for how long a
-- log is kept (ms), the most refusals of a customer, the most of the bucket, then the refusals, oldest first.
-- Replies the customers whose logs the caller has to remove.
local log, counts, order = KEYS[1], KEYS[2], KEYS[3]
local customer, now, kept_ms, most, most_in_all = ARGV[1], ARGV[2] + 0, ARGV[3] + 0, ARGV[4] + 0, ARGV[5] + 0
redis.call('LPUSH', log, unpack(ARGV, 6))
redis.call('LTRIM', log, 0, most - 1)
redis.call('PEXPIRE', log, kept_ms)
local there = redis.call('LLEN', log)
local sum = whole(redis.call('HGET', counts, '')) + there - whole(redis.call('HGET', counts, customer))
redis.call('HSET', counts, customer, there)
redis.call('ZADD', order, now, customer)

local function drop(name)
  sum = sum - whole(redis.call('HGET', counts, name))
  redis.call('HDEL', counts, name)
  redis.call('ZREM', order, name)
end

for _, name in ipairs(redis.call('ZRANGEBYSCORE', order, '-inf', now - kept_ms)) do drop(name) end  -- these have expired
local gone = {}
while sum > most_in_all do
  local oldest = redis.call('ZRANGE', order, 0, 0)[1]
  if oldest == customer then break end
  drop(oldest)
  gone[#gone + 1] = oldest
end
redis.call('HSET', counts, '', sum)
redis.call('PEXPIRE', counts, kept_ms)
redis.call('PEXPIRE', order, kept_ms)
return gone
