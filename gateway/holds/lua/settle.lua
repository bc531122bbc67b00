-- Books what a hold came to: once, whoever asks and however often. One verb for four moments, told by ARGV, whose first
-- is a list in JSON:
--   settled by its worker    expects live,    closes
--   lapsed                   expects live,    stays open as suspect with the tokens so far billed; or closes, if its
--                                             owner is proven dead
--   settled late             expects suspect, closes: the tokens beyond what was billed, as a correction
--   released                 expects suspect, closes with nothing more to bill
-- KEYS after the ninth: the end user's, where its tokens are limited, the Idempotency-Key's, if there is one, then what
-- leads later calls to this conversation. The list says where each stands, 0 where it does not.
-- Replies {'done', charge, conversation_left, now}, {'suspect', billed, first_was_charged}, or 'rebuild', 'unknown',
-- 'settled', 'renewed' (the hold was renewed since the reclaimer looked).
local state, hold, holds, mark, window, conversation, pace, usage, notices =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local generation, hold_id, expects, closes, lapsed_with, lease_ms, tokens, input, charge_first, charge_again, name,
  included, end_user_at, once_at, threads_from, period_max, period_near, spend_max, spend_near =
  unpack(cjson.decode(ARGV[1]))
local record, answer_first, answer_again = ARGV[2], ARGV[3], ARGV[4]
local end_user, once = KEYS[end_user_at], KEYS[once_at]

-- The answer of a call with an Idempotency-Key is kept for a day; without an answer to keep, the key is free again.
local function close_once(answer)
  if redis.call('HGET', once, 'call') ~= hold_id then return end
  if answer == '' then
    redis.call('DEL', once)
  else
    redis.call('HSET', once, 'answer', answer)
    redis.call('PEXPIRE', once, DAY_MS)
  end
end

-- What is used of a limit has come to a threshold of it: told at that moment, and once a period.
local function tell_if_reached(limit, percent, threshold, max, added, after)
  if threshold == '' or not after then return end
  if after < whole(threshold) or after - whole(added) >= whole(threshold) then return end
  if redis.call('HSETNX', window, 'told_' .. limit .. '_' .. percent, '1') == 0 then return end
  redis.call('XADD', notices, '*', 'limit', limit, 'percent', percent, 'max', max, 'used', written(after),
    'facts', redis.call('HGET', hold, 'facts'))
end

if redis.call('HGET', state, 'generation') ~= generation then return {'rebuild'} end
local h = redis.call('HMGET', hold, 'state', 'tokens', 'money', 'input', 'sofar', 'billed', 'first', 'charged')
if not h[1] then  -- a hold that is there is not settled: one step removes it and leaves the mark
  local done = redis.call('GET', mark)
  return done and cjson.decode(done) or {'unknown'}
end
local now = now_ms()
if lapsed_with then
  local lease_until = redis.call('ZSCORE', holds, hold_id)
  if not lease_until or tonumber(lease_until) > now or h[1] ~= expects or h[5] ~= lapsed_with then return {'renewed'} end
elseif h[1] ~= expects then
  return {h[1], h[6]}
end

-- The price of a conversation goes onto the first record with an output token, but for those a subscription includes.
local c = redis.call('HMGET', conversation, 'first', 'charged', 'cap', 'used', 'held', 'input_used', 'input_held',
  'live', 'last')
local is_same = c[1] == h[7]
local charged = h[8]
if is_same then charged = c[2] end
local charge = charge_again
if tokens ~= '0' and charged ~= '1' then
  if included ~= '0' and whole(redis.call('HGET', window, 'included')) < whole(included) then
    redis.call('HINCRBY', window, 'included', 1)
  else
    charge = charge_first
  end
  charged = '1'
end

local freed_tokens, freed_money, freed_input = tokens, charge, input
if closes then freed_tokens, freed_money, freed_input = h[2], h[3], h[4] end
local used = add(window, 'used', tokens)
add(window, 'held', less(freed_tokens))
if end_user then
  add(end_user, 'used', tokens)
  add(end_user, 'held', less(freed_tokens))
end
local spent = add(window, 'spend_used', charge)
add(window, 'spend_held', less(freed_money))
tell_if_reached('period_tokens', '80', period_near, period_max, tokens, used)
tell_if_reached('period_tokens', '100', period_max, period_max, tokens, used)
tell_if_reached('spend', '80', spend_near, spend_max, charge, spent)
tell_if_reached('spend', '100', spend_max, spend_max, charge, spent)
local conversation_left = ''
if is_same then
  local after, held = whole(c[4]) + whole(tokens), whole(c[5]) - whole(freed_tokens)
  local live, last = whole(c[8]), c[9]
  if closes then live, last = live - 1, written(now) end
  redis.call('HSET', conversation, 'charged', charged, 'last', last, 'live', written(live), 'used', written(after),
    'held', written(held), 'input_used', written(whole(c[6]) + whole(input)),
    'input_held', written(whole(c[7]) - whole(freed_input)))
  conversation_left = written(tonumber(c[3]) - after - held)
end
if record ~= '' then redis.call('XADD', usage, '*', 'record', record, 'charge', charge) end

if closes then
  local reply = {'done', charge, conversation_left, written(now)}
  if is_same then
    for place = threads_from, #KEYS do redis.call('SET', KEYS[place], name, 'PX', HOUR_MS) end
  end
  if once then close_once(charge == charge_first and answer_first or answer_again) end
  redis.call('HINCRBY', pace, 'live', -1)
  redis.call('DEL', hold)
  redis.call('ZREM', holds, hold_id)
  redis.call('SET', mark, kept(reply), 'PX', DAY_MS)
  return reply
end
add(hold, 'tokens', less(tokens))
add(hold, 'money', less(charge))
add(hold, 'input', less(input))
redis.call('HSET', hold, 'state', 'suspect', 'billed', tokens)
redis.call('ZADD', holds, written(now + lease_ms), hold_id)
return {'done', charge, conversation_left, written(now)}
