-- Admits a call or refuses it: every window of the customer moves together, or none does.
-- Replies {'granted', now, grant, allowed, conversation_left, period_left, first, charged}, {'refused', why, …},
-- {'clocks', the time here} where the asker cannot vouch for its own, or says what the gateway must look up again:
-- 'rebuild', 'no key', 'stale customer', 'stale timeline', 'stale period' (with the time), 'begun' (the conversation's
-- own tier and menu version).
-- The eleventh of KEYS, the end user's, is there only where its tokens are limited. ARGV: a list in JSON, whose last
-- part is the same for every call of a customer, and the facts of the call.
local state, hold, holds, mark, window, conversation, pace, usage, key, customer, end_user =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10], KEYS[11]
local generation, timeline, customer_id, customer_rev, hold_id, owner, lease_ms, deadline_ms, want, choices, input,
  money_first, money_again, backlog_max, told, vouches, turns, booked, terms = unpack(cjson.decode(ARGV[1]))
local period_start, period_end, tier, version, cap, price, grant_min, tokens_max, money_max, input_most, per_minute,
  at_once, end_user_most = unpack(terms)
local facts = ARGV[2]
local period_max, spend_max, input_max = limit(tokens_max), limit(money_max), limit(input_most)
local concurrency_max, end_user_left = limit(at_once), limit(end_user_most)

-- Is what the gateway believes still so?
local known = redis.call('HMGET', state, 'generation', 'timeline', 'full', 'tide')
if known[1] ~= generation or whole(known[4]) < booked then return {'rebuild'} end
local micros, agrees, here = time_us(told)
if not (agrees or vouches) then return {'clocks', written(math.floor(here / 1000))} end
local now = math.floor(micros / 1000)
local holder = redis.call('HMGET', key, 'customer', 'expires')
if holder[1] ~= customer_id then return {'no key'} end
if holder[2] ~= '' and whole(holder[2]) <= now then return {'no key'} end
if redis.call('HGET', customer, 'rev') ~= customer_rev then return {'stale customer'} end
if whole(known[2]) > timeline then return {'stale timeline'} end

-- The same command again, after a lost connection: the same answer.
if redis.call('EXISTS', mark, hold) > 0 then
  local reply = redis.call('HGET', hold, 'reply')
  return reply and cjson.decode(reply) or {'refused', 'settled'}
end

-- Neither records that the ledger does not take nor anything else may fill the server: what runs must be settled.
if redis.call('XLEN', usage) >= backlog_max then return {'refused', 'backlog'} end
if known[3] then return {'refused', 'full'} end
if now < period_start or now >= period_end then return {'stale period', written(now)} end

-- The conversation: its tier, menu version, cap and price are those of its first call.
local c = redis.call('HMGET', conversation, 'first', 'last', 'live', 'tier', 'version', 'cap', 'used', 'held',
  'input_used', 'input_held', 'charged')
local is_open, was_there, at = conversation_is_open(c[1], c[2], c[3], now), c[1], written(now)
if is_open then
  if c[4] ~= tier or c[5] ~= version then return {'begun', c[4], c[5]} end
  cap = c[6]
else
  c = {at, at, '0', tier, version, cap, '0', '0', '0', '0', '0'}
end
local conversation_left = tonumber(cap) - whole(c[7]) - whole(c[8])
local allowed = math.min(want, math.floor(conversation_left / choices))
if allowed < math.min(want, 1) then return {'refused', 'conversation', written(math.max(conversation_left, 0))} end
if whole(c[9]) + whole(c[10]) + input > input_max then
  return {'refused', 'conversation input', written(input_max)}
end

-- The period: a price per conversation buys the whole cap or nothing.
local w = redis.call('HMGET', window, 'used', 'held', 'spend_used', 'spend_held', 'tokens_max', 'spend_max', 'breach')
if w[7] then return {'refused', 'breach'} end
local period_left = period_max - whole(w[1]) - whole(w[2])
local u = {}
if end_user then
  u = redis.call('HMGET', end_user, 'used', 'held')
  end_user_left = end_user_left - whole(u[1]) - whole(u[2])
end
local grant = math.min(allowed, math.floor(math.min(period_left, end_user_left) / choices))
if grant < allowed and (price ~= '0' or grant < math.min(grant_min, allowed)) then
  if end_user_left < period_left then return {'refused', 'end user', written(math.max(end_user_left, 0))} end
  return {'refused', 'period', written(math.max(period_left, 0))}
end
local money = money_first
if c[11] == '1' then money = money_again end
local spend_left = spend_max - whole(w[3]) - whole(w[4])
if whole(money) > spend_left then
  return {'refused', 'spend', written(math.max(spend_left, 0)), c[11], written(allowed)}
end

-- How fast and how many at once. A turn that is further off than any call can put it was put there by another clock.
local p = redis.call('HMGET', pace, 'live', turns)
if whole(p[1]) + 1 > concurrency_max then return {'refused', 'concurrency'} end
local pacing = {'live', written(bounded(whole(p[1]) + 1))}
if per_minute ~= '' then
  local apart = 60000000 / tonumber(per_minute)
  local turn = math.max(whole(p[2]), micros)
  if turn > micros + 60000000 then turn = micros + 60000000 - apart end
  local arrival = turn + apart
  if arrival - 60000000 > micros then return {'refused', 'rate', written(math.ceil(arrival - 60000000 - micros))} end
  pacing = {'live', pacing[2], turns, written(math.ceil(arrival))}
end

-- Admitted. The first write may fail, where the server is full or the set is none; those after it go to what was read.
local tokens = written(grant * choices)
local left = ''
if tokens_max ~= '' then left = written(period_left - grant * choices) end
local granted = {'granted', at, written(grant), written(allowed),
  written(conversation_left - grant * choices), left, c[1], c[11]}
redis.call('ZADD', holds, written(now + lease_ms), hold_id)
redis.call('HSET', hold, 'owner', owner, 'state', 'live', 'admitted', at,
  'deadline', written(now + deadline_ms), 'grant', written(grant), 'tokens', tokens, 'money', money,
  'input', written(input), 'sofar', '0', 'window', window, 'first', c[1],
  'charged', c[11], 'facts', facts, 'reply', kept(granted))
local held, spend_held = written(whole(w[2]) + tonumber(tokens)), written(whole(w[4]) + whole(money))
if w[5] ~= tokens_max or w[6] ~= money_max then
  redis.call('HSET', window, 'held', held, 'spend_held', spend_held, 'tokens_max', tokens_max, 'spend_max', money_max)
else
  redis.call('HSET', window, 'held', held, 'spend_held', spend_held)
end
if end_user then redis.call('HSET', end_user, 'held', written(whole(u[2]) + tonumber(tokens))) end
if is_open then
  redis.call('HSET', conversation, 'last', at, 'live', written(whole(c[3]) + 1),
    'held', written(whole(c[8]) + tonumber(tokens)), 'input_held', written(whole(c[10]) + input))
else
  if was_there then redis.call('DEL', conversation) end
  redis.call('HSET', conversation, 'first', at, 'tier', tier, 'version', version, 'cap', cap, 'price', price,
    'charged', '0', 'last', at, 'live', '1', 'held', tokens, 'input_held', written(input))
end
redis.call('PEXPIRE', conversation, written(HOUR_MS + deadline_ms))
redis.call('HSET', pace, unpack(pacing))
return granted
