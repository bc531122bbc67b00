-- Writes one notice that a limit refuses a customer's calls, and another only after the limit or the period has changed.
-- KEYS: the notified lock-outs of the customer, its bucket's notices. ARGV: the limit, the period and the limit's amount
-- in one text, when the period ends (ms), and the notice.
-- Replies 1 where it wrote the notice, else 0.
if redis.call('HGET', KEYS[1], ARGV[1]) == ARGV[2] then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.pcall('PEXPIREAT', KEYS[1], ARGV[3])
redis.pcall('XADD', KEYS[2], '*', 'locked_out', ARGV[1], 'facts', ARGV[4])
return 1
