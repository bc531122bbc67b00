-- Writes a live call's hold again after a rebuild, from what its worker remembers. The rebuilt windows hold what is
-- in the ledger; what was on its way comes back here. Replies 'announced', 'known', 'settled' or 'rebuild'.
-- The eighth of KEYS, the end user's, is there only where its tokens are limited.
local state, window, conversation, pace, hold, holds, mark, end_user =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local generation, hold_id, owner, lease_ms, deadline = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local admitted, grant, tokens, money, input, sofar = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local first, charged, tier, version, cap, price = ARGV[12], ARGV[13], ARGV[14], ARGV[15], ARGV[16], ARGV[17]
local period_end, facts = ARGV[18], ARGV[19]

if redis.call('HGET', state, 'generation') ~= generation then return 'rebuild' end
if redis.call('EXISTS', mark) == 1 then return 'settled' end
if redis.call('EXISTS', hold) == 1 then return 'known' end
local now = now_ms()
local known_first = redis.call('HGET', conversation, 'first')
if not known_first then
  redis.call('HSET', conversation, 'first', first, 'tier', tier, 'version', version, 'cap', cap, 'price', price,
    'charged', charged, 'last', admitted)
else
  -- The ledger dates a conversation from its first record; its calls on their way join it.
  first = known_first
end
redis.call('HSET', hold, 'owner', owner, 'state', 'live', 'admitted', admitted, 'deadline', deadline, 'grant', grant,
  'tokens', tokens, 'money', money, 'input', input, 'sofar', sofar, 'window', window,
  'first', first, 'charged', charged, 'facts', facts)
redis.call('ZADD', holds, written(now + tonumber(lease_ms)), hold_id)
add(window, 'held', tokens)
add(window, 'spend_held', money)
redis.call('PEXPIREAT', window, written(whole(period_end) + 2 * DAY_MS))
if end_user then
  add(end_user, 'held', tokens)
  redis.call('PEXPIREAT', end_user, written(whole(period_end) + 2 * DAY_MS))
end
redis.call('HINCRBY', conversation, 'live', 1)
add(conversation, 'held', tokens)
add(conversation, 'input_held', input)
redis.call('PEXPIREAT', conversation, written(whole(deadline) + 2 * HOUR_MS))
redis.call('HINCRBY', pace, 'live', 1)
return 'announced'
