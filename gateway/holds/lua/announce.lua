#!lua flags=allow-oom
-- Writes a live call's hold again after a rebuild, from what its worker remembers. The rebuilt windows hold what is
-- in the ledger; what was in flight comes back here. Replies 'announced', 'known', 'settled' or 'rebuild'.
-- The eighth of KEYS, the end user's, is there only where its tokens are limited.
local state, window, conversation, pace, hold, holds, mark, end_user =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local generation, hold_id, owner, lease_ms, deadline = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local admitted, grant, tokens, money, input, sofar = ARGV[6], ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11]
local first, charged, tier, version, cap, price = ARGV[12], ARGV[13], ARGV[14], ARGV[15], ARGV[16], ARGV[17]
local facts, told, owes_input = ARGV[18], ARGV[19], ARGV[20]

if redis.call('HGET', state, 'generation') ~= generation then return 'rebuild' end
if redis.call('EXISTS', mark) == 1 then return 'settled' end
if redis.call('EXISTS', hold) == 1 then return 'known' end
local now = time_ms(tonumber(told))
local c = redis.call('HMGET', conversation, 'first', 'live', 'held', 'input_held')
local w = redis.call('HMGET', window, 'held', 'spend_held')
local user_held = end_user and redis.call('HGET', end_user, 'held')
local live = redis.call('HGET', pace, 'live')
local talk = {'live', written(bounded(whole(c[2]) + 1)), 'held', written(bounded(whole(c[3]) + whole(tokens))),
  'input_held', written(bounded(whole(c[4]) + whole(input)))}
local held = written(bounded(whole(w[1]) + whole(tokens)))
local spend_held = written(bounded(whole(w[2]) + whole(money)))
local calls = written(bounded(whole(live) + 1))

redis.call('ZADD', holds, written(now + tonumber(lease_ms)), hold_id)
if not c[1] then
  redis.call('HSET', conversation, 'first', first, 'tier', tier, 'version', version, 'cap', cap, 'price', price,
    'charged', charged, 'last', admitted)
end
-- The ledger dates a conversation from its first record; its calls in flight join it.
redis.call('HSET', hold, 'owner', owner, 'state', 'live', 'admitted', admitted, 'deadline', deadline, 'grant', grant,
  'tokens', tokens, 'money', money, 'input', input, 'sofar', sofar, 'window', window,
  'first', c[1] or first, 'charged', charged, 'facts', facts, 'owes_input', owes_input)
redis.call('HSET', window, 'held', held, 'spend_held', spend_held)
if end_user then redis.call('HSET', end_user, 'held', written(bounded(whole(user_held) + whole(tokens)))) end
redis.call('HSET', conversation, unpack(talk))
redis.call('PEXPIRE', conversation, written(math.max(whole(deadline) - now, 0) + HOUR_MS))
redis.call('HSET', pace, 'live', calls)
return 'announced'
