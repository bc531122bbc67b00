-- Admits or refuses a call: checks every limit and quota, then updates all windows of the customer together, or none.
-- Replies, packed, the time, the tokens granted and allowed, the tokens left of the conversation and of the period (NONE
-- where the period has no limit), when the conversation began and whether it was charged; or {'refused', the reason, …};
-- {'clocks', this server's time} where the clocks disagree and the gateway cannot vouch for its own; or what the gateway
-- must look up again: 'rebuild', 'no key', 'stale customer', 'stale timeline', 'stale period' (with the time), 'begun' (with
-- the conversation's own tier and menu version).
-- KEYS[10], the end user's, is present only where the end user's tokens are limited. ARGV: the packed request, whose last
-- part is the same for every call of a customer; and the last part of the hold: the worker, the window and the facts of the
-- call.
local call = redis.call
local state, inflight, settled, window, conversation, pace, usage, key, customer, end_user = unpack(KEYS)
local timeline, deadline_ms, want, choices, input, money_first, money_again, backlog_max, told, vouches, booked, generation,
  customer_id, customer_rev, hold_id, turns, period_start, period_end, cap, price, grant_min, tokens_max, money_max,
  input_max, per_minute, concurrency_max, end_user_left, terms_at = struct.unpack('<dddddddddddsssssddddddddddd', ARGV[1])
local terms = string.sub(ARGV[1], terms_at)  -- tier and menu version, as a conversation has them
local period_max = tokens_max < MOST and tokens_max or MOST
local spend_max = money_max < MOST and money_max or MOST

-- Check whether the values that the gateway remembers are still valid.
local known = call('HMGET', state, 'generation', 'timeline', 'full', 'tide')
if known[1] ~= generation or whole(known[4]) < booked then return {'rebuild'} end
local micros, agrees, here = time_us(told)
if not agrees and vouches == 0 then return {'clocks', here / 1000} end
local now = math.floor(micros / 1000)
local holder = call('HMGET', key, 'customer', 'expires')
if holder[1] ~= customer_id then return {'no key'} end
if holder[2] ~= '' and whole(holder[2]) <= now then return {'no key'} end
if call('HGET', customer, 'rev') ~= customer_rev then return {'stale customer'} end
if whole(known[2]) > timeline then return {'stale timeline'} end

-- A command that is sent again after a lost connection gets the same reply.
local again = call('HGET', inflight, hold_id)
if again then
  local _, _, _, _, first, charged, _, admitted, grant, allowed, conversation_left, period_left = struct.unpack(HOLD, again)
  return struct.pack(GRANTED, admitted, grant, allowed, conversation_left, period_left, first, charged)
end
if call('HEXISTS', settled, hold_id) == 1 then return {'refused', 'settled'} end

-- Neither records that the ledger does not take nor other data may fill the server: in-flight calls must be settled.
if call('XLEN', usage) >= backlog_max then return {'refused', 'backlog'} end
if known[3] then return {'refused', 'full'} end
if now < period_start or now >= period_end then return {'stale period', now} end

-- The conversation: its tier, menu version, cap and price are those of its first call. It ends an hour after its last call
-- or a day after its first, whichever comes first.
local its_terms, first, last, live, its_cap, used, held, input_used, input_held, charged, kind =
  conversation_at(conversation)
if first and now - first < DAY_MS and (live > 0 or now - last < HOUR_MS) then
  if its_terms ~= terms then return {'begun', struct.unpack('ss', its_terms)} end
  cap = its_cap
else
  first, live, used, held, input_used, input_held, charged, kind = now, 0, 0, 0, 0, 0, 0, nil
end
local conversation_left = cap - used - held
local allowed = math.floor(conversation_left / choices)
if allowed > want then allowed = want end
if allowed < want and allowed < 1 then
  return {'refused', 'conversation', math.max(conversation_left, 0), used, held}
end
if input_used + input_held + input > input_max then
  return {'refused', 'conversation input', input_max, input_used, input_held}
end

-- The period: a price per conversation buys the whole cap or nothing.
local is_breached, is_older, window_used, window_held, spend_used, spend_held, included = window_at(window)
if is_breached then return {'refused', 'breach'} end
local period_left = period_max - window_used - window_held
local user_used, user_held
if end_user then
  local u = call('HMGET', end_user, 'used', 'held')
  user_used, user_held = whole(u[1]), whole(u[2])
  end_user_left = end_user_left - user_used - user_held
end
local grant = math.floor((end_user_left < period_left and end_user_left or period_left) / choices)
if grant > allowed then grant = allowed end
if grant < allowed and (price ~= 0 or grant < math.min(grant_min, allowed)) then
  if end_user_left < period_left then
    return {'refused', 'end user', math.max(end_user_left, 0), user_used, user_held, allowed}
  end
  return {'refused', 'period', math.max(period_left, 0), window_used, window_held, allowed}
end
local money = charged == 1 and money_again or money_first
local spend_left = spend_max - spend_used - spend_held
if money > spend_left then
  return {'refused', 'spend', math.max(spend_left, 0), spend_used, spend_held, allowed, money}
end

-- The concurrency and the request rate. A turn further ahead than any call can put it was written by another clock.
local p = call('HMGET', pace, 'live', turns)
local running = whole(p[1]) + 1
if running > concurrency_max then return {'refused', 'concurrency', 0, 0, running - 1} end
if running > MOST then running = MOST end
local arrival
if per_minute >= 0 then
  local apart, turn = 60000000 / per_minute, whole(p[2])
  if turn < micros then turn = micros end
  if turn > micros + 60000000 then turn = micros + 60000000 - apart end
  arrival = turn + apart
  if arrival - 60000000 > micros then return {'refused', 'rate', math.ceil(arrival - 60000000 - micros)} end
end

-- Admitted. Only the first write may fail, where the server is full or the key is no hash; later writes go to keys that were
-- read.
local tokens = grant * choices
conversation_left = conversation_left - tokens
local left = tokens_max == math.huge and NONE or period_left - tokens
local hold = struct.pack(HOLD, 'live', tokens, money, input, first, charged, now + deadline_ms, now, grant, allowed,
  conversation_left, left)
call('HSET', inflight, hold_id, hold .. ARGV[2])
put_window(window, is_older, window_used, window_held + tokens, spend_used, spend_held + money, included, tokens_max,
  money_max)
if end_user then call('HSET', end_user, 'held', user_held + tokens) end
put_conversation(conversation, HOUR_MS + deadline_ms, kind, terms, first, now, live + 1, cap, used, held + tokens,
  input_used, input_held + input, charged)
if arrival then
  call('HSET', pace, 'live', running, turns, math.ceil(arrival))
else
  call('HSET', pace, 'live', running)
end
return struct.pack(GRANTED, now, grant, allowed, conversation_left, left, first, charged)
