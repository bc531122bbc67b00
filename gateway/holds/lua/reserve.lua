-- Admits a call or refuses it: checks every limit and quota; every window of the customer moves together, or none does.
-- Replies, packed, now, what is granted and allowed, what is left of the conversation and the period (NONE where there is
-- no limit), when the conversation began and whether it was charged; or {'refused', why, …}, {'clocks', the time here}
-- where the gateway cannot vouch for its own clock, or what the gateway must look up again: 'rebuild', 'no key',
-- 'stale customer', 'stale timeline', 'stale period' (with the time), 'begun' (the conversation's own tier and menu version).
-- The tenth of KEYS, the end user's, is present only where the end user's tokens are limited. ARGV: the request, packed,
-- with a last part that is the same for every call of a customer; and the facts of the call.
local state, inflight, settled, window, conversation, pace, usage, key, customer, end_user =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9], KEYS[10]
local timeline, deadline_ms, want, choices, input, money_first, money_again, backlog_max, told, vouches, booked, generation,
  customer_id, customer_rev, hold_id, owner, turns, period_start, period_end, cap, price, grant_min, period_max, spend_max,
  input_max, per_minute, concurrency_max, end_user_left, tier, version =
  struct.unpack('<dddddddddddssssssdddddddddddss', ARGV[1])
local tokens_max, money_max = period_max, spend_max
period_max, spend_max = math.min(period_max, MOST), math.min(spend_max, MOST)

-- Are the gateway's remembered values still true?
local known = redis.call('HMGET', state, 'generation', 'timeline', 'full', 'tide')
if known[1] ~= generation or whole(known[4]) < booked then return {'rebuild'} end
local micros, agrees, here = time_us(told)
if not agrees and vouches == 0 then return {'clocks', written(math.floor(here / 1000))} end
local now = math.floor(micros / 1000)
local holder = redis.call('HMGET', key, 'customer', 'expires')
if holder[1] ~= customer_id then return {'no key'} end
if holder[2] ~= '' and whole(holder[2]) <= now then return {'no key'} end
if redis.call('HGET', customer, 'rev') ~= customer_rev then return {'stale customer'} end
if whole(known[2]) > timeline then return {'stale timeline'} end

-- The same command again, after a lost connection: the same answer.
local again = redis.call('HGET', inflight, hold_id)
if again then
  local _, _, _, _, first, charged, _, admitted, grant, allowed, conversation_left, period_left = struct.unpack(HOLD, again)
  return struct.pack(GRANTED, admitted, grant, allowed, conversation_left, period_left, first, charged)
end
if redis.call('HEXISTS', settled, hold_id) == 1 then return {'refused', 'settled'} end

-- Neither records that the ledger does not take nor anything else may fill the server: in-flight calls must be settled.
if redis.call('XLEN', usage) >= backlog_max then return {'refused', 'backlog'} end
if known[3] then return {'refused', 'full'} end
if now < period_start or now >= period_end then return {'stale period', written(now)} end

-- The conversation: its tier, menu version, cap and price are those of its first call.
local first, last, live, its_cap, used, held, input_used, input_held, charged, its_tier, its_version, is_hash =
  conversation_at(conversation)
if conversation_is_open(first, last, live, now) then
  if its_tier ~= tier or its_version ~= version then return {'begun', its_tier, its_version} end
  cap = its_cap
else
  first, live, used, held, input_used, input_held, charged, is_hash = now, 0, 0, 0, 0, 0, 0, false
end
local conversation_left = cap - used - held
local allowed = math.min(want, math.floor(conversation_left / choices))
if allowed < math.min(want, 1) then
  return {'refused', 'conversation', written(math.max(conversation_left, 0)), written(used), written(held)}
end
if input_used + input_held + input > input_max then
  return {'refused', 'conversation input', written(input_max), written(input_used), written(input_held)}
end

-- The period: a price per conversation buys the whole cap or nothing.
local window_used, window_held, spend_used, spend_held, included, _, _, is_breached, is_older = window_at(window)
if is_breached then return {'refused', 'breach'} end
local period_left = period_max - window_used - window_held
local user_used, user_held
if end_user then
  local u = redis.call('HMGET', end_user, 'used', 'held')
  user_used, user_held = whole(u[1]), whole(u[2])
  end_user_left = end_user_left - user_used - user_held
end
local grant = math.min(allowed, math.floor(math.min(period_left, end_user_left) / choices))
if grant < allowed and (price ~= 0 or grant < math.min(grant_min, allowed)) then
  if end_user_left < period_left then
    return {'refused', 'end user', written(math.max(end_user_left, 0)), written(user_used), written(user_held), written(allowed)}
  end
  return {'refused', 'period', written(math.max(period_left, 0)), written(window_used), written(window_held), written(allowed)}
end
local money = charged == 1 and money_again or money_first
local spend_left = spend_max - spend_used - spend_held
if money > spend_left then
  return {'refused', 'spend', written(math.max(spend_left, 0)), written(spend_used), written(spend_held), written(allowed),
    written(money)}
end

-- The request rate and the concurrency. A turn further off than any call can put it was put there by another clock.
local p = redis.call('HMGET', pace, 'live', turns)
local running = whole(p[1]) + 1
if running > concurrency_max then return {'refused', 'concurrency', '0', '0', written(running - 1)} end
running = bounded(running)
local arrival
if per_minute >= 0 then
  local apart = 60000000 / per_minute
  local turn = math.max(whole(p[2]), micros)
  if turn > micros + 60000000 then turn = micros + 60000000 - apart end
  arrival = turn + apart
  if arrival - 60000000 > micros then return {'refused', 'rate', written(math.ceil(arrival - 60000000 - micros))} end
end

-- Admitted. Only the first write may fail, where the server is full or the key is no hash; later writes go to what was read.
local tokens = grant * choices
conversation_left = conversation_left - tokens
local left = tokens_max == math.huge and NONE or period_left - tokens
redis.call('HSET', inflight, hold_id, packed_hold('live', tokens, money, input, first, charged, now + deadline_ms, now,
  grant, allowed, conversation_left, left, owner .. '\0' .. window .. '\0' .. ARGV[2]))
put_window(window, window_used, window_held + tokens, spend_used, spend_held + money, included, tokens_max, money_max,
  is_older)
if end_user then redis.call('HSET', end_user, 'held', user_held + tokens) end
put_conversation(conversation, HOUR_MS + deadline_ms, first, now, live + 1, cap, used, held + tokens, input_used,
  input_held + input, charged, tier, version, is_hash)
if arrival then
  redis.call('HSET', pace, 'live', running, turns, math.ceil(arrival))
else
  redis.call('HSET', pace, 'live', running)
end
return struct.pack(GRANTED, now, grant, allowed, conversation_left, left, first, charged)
