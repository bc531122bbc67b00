#!lua flags=allow-oom
-- Settles a hold: once, whichever process asks and however often. One verb for four moments, told apart by ARGV, whose
-- first is packed:
--   settled by its worker    expects live,    closes
--   lapsed                   expects live,    stays open as suspect with the tokens so far billed; or closes, if its
--                                             owner is proven dead
--   settled late             expects suspect, closes: the tokens beyond what was billed, as a correction
--   released                 expects suspect, closes with nothing more to bill
-- KEYS after the eighth: the end user's, where its tokens are limited, the Idempotency-Key's and the count of kept
-- answers, where the call has a key, then the threads to this conversation. The first of ARGV has the place of each, 0
-- where it is absent. The script also runs on a full server: admitted calls must be settled.
-- ARGV after the record: the thresholds of notices, packed, each a percent with its share of the period's tokens and of
-- the spend; then the answers to keep.
-- Replies, packed, the charge, what is left of the conversation (NONE where another has its place) and the time; or
-- {'suspect', billed, '1' where input was owed}, or 'rebuild', 'unknown', 'renewed' (the hold was renewed since the
-- reclaimer read it).
local state, inflight, settled, window, conversation, pace, usage, notices =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8]
local closes, has_lapsed, told, kept_max, tokens, input, charge_first, charge_again, included, end_user_at, once_at,
  threads_from, period_max, spend_max, generation, hold_id, expects, lapsed_with, name_at =
  struct.unpack('<ddddddddddddddssss', ARGV[1])
closes = closes == 1
local record, thresholds, answer_first, answer_again = ARGV[2], ARGV[3], ARGV[4], ARGV[5]
local end_user, once, answers = KEYS[end_user_at], KEYS[once_at], KEYS[once_at + 1]

if redis.call('HGET', state, 'generation') ~= generation then return {'rebuild'} end
local hold = redis.call('HGET', inflight, hold_id)
if not hold then  -- a hold that exists is not settled: one step removes it and leaves the mark
  local mark = redis.call('HGET', settled, hold_id)
  return mark and string.sub(mark, 1, 24) or {'unknown'}
end
local now = time_ms(told)
local stands, held_tokens, held_money, held_input, hold_first, hold_charged = struct.unpack('<sddddd', hold)
local progress = ''
if has_lapsed == 1 or stands ~= expects then
  progress = redis.call('HGET', inflight, PROGRESS .. hold_id) or ''
  if has_lapsed == 0 then
    local owes, before = string.match(progress, '^%d+ %d+ ([01]) (%d+)')
    return {stands, before, owes}
  end
  if stands ~= expects or progress ~= lapsed_with then return {'renewed'} end
end

-- The price of a conversation goes onto its first record with an output token, unless a subscription includes it.
local first, last, live, cap, used, held, input_used, input_held, charged, tier, version, is_hash =
  conversation_at(conversation)
local window_used, window_held, spend_used, spend_held, in_subscription, tokens_max, money_max, _, is_older, has_moved =
  window_at(window)
if has_moved then  -- the customer's period has changed since: the hold says where it is counted now
  local _, name, facts = texts_of(hold)
  window, end_user = name, end_user and string.match(facts, '"end_user_window":"([^"]*)"')
  window_used, window_held, spend_used, spend_held, in_subscription, tokens_max, money_max, _, is_older =
    window_at(window)
end
local u = end_user and redis.call('HMGET', end_user, 'used', 'held')
local is_same = first == hold_first
if not is_same then charged = hold_charged end
local charge, newly_included = charge_again, false
if tokens ~= 0 and charged ~= 1 then
  if in_subscription < included then newly_included = true else charge = charge_first end
  charged = 1
end

local freed_tokens, freed_money, freed_input = tokens, charge, input
if closes then freed_tokens, freed_money, freed_input = held_tokens, held_money, held_input end
local used_after, spent_after = bounded(window_used + tokens), bounded(spend_used + charge)
local conversation_left, came_to_nothing = NONE, false
if is_same then
  used, held = bounded(used + tokens), bounded(held - freed_tokens)
  input_used, input_held = bounded(input_used + input), bounded(input_held - freed_input)
  if closes then live, last = live - 1, now end
  came_to_nothing = record == '' and live <= 0 and used == 0 and input_used == 0 and charged ~= 1
  conversation_left = cap - used - held
end
local entry = {'record', record, 'charge', written(charge), 'settled', written(now)}
if is_same then entry[7], entry[8] = 'cap', written(cap) end
if newly_included then entry[#entry + 1], entry[#entry + 2] = 'included', '1' end
local user_used, user_held = 0, 0
if u then user_used, user_held = bounded(whole(u[1]) + tokens), bounded(whole(u[2]) - freed_tokens) end

-- The answer of a call with an Idempotency-Key is kept for a day, where the customer's budget has room. Its bytes count
-- under the hour in which it was kept, for as long as it may exist; without an answer the key is free again.
local answer, is_claimed, hour, past = '', false, nil, nil
if once and closes then
  hour, past = written(math.floor(now / HOUR_MS)), {}
  answer = charge == charge_first and answer_first or answer_again
  is_claimed = redis.call('HGET', once, 'call') == hold_id
  local size, counted = #answer + 400, redis.call('HGETALL', answers)
  local room = kept_max - size
  for place = 1, #counted, 2 do
    local age = hour - counted[place]
    if age > 24 or age < -1 then past[#past + 1] = counted[place] else room = room - counted[place + 1] end
  end
  if room < 0 then answer = '' end
end

-- The use of a limit has reached a threshold: a notice is written at that moment, once a period for each amount of the
-- limit, so again where the limit was raised.
local function tell(limit, percent, max, after)
  percent = written(percent)
  local name, amount = 'told_' .. limit .. '_' .. percent, written(max)
  if redis.call('HGET', window, name) == amount then return end
  redis.call('HSET', window, name, amount)
  local _, _, facts = texts_of(hold)
  redis.pcall('XADD', notices, '*', 'limit', limit, 'percent', percent, 'max', amount, 'used', written(after), 'facts',
    facts)
end

-- The first writes may fail, where the keys of the marks or the stream have another type. Later writes go to what was
-- read; those that do not may fail.
local reply = struct.pack(DONE, charge, conversation_left, now)
if closes then redis.call('HSET', settled, hold_id, packed_mark(reply)) end
local added = record == '' or redis.pcall('XADD', usage, '*', unpack(entry))
if type(added) == 'table' then
  redis.call('HDEL', settled, hold_id)
  return redis.error_reply(added.err)
end
if newly_included then in_subscription = in_subscription + 1 end
put_window(window, used_after, bounded(window_held - freed_tokens), spent_after, bounded(spend_held - freed_money),
  in_subscription, tokens_max, money_max, is_older)
if u and user_used == 0 and user_held == 0 then
  redis.call('DEL', end_user)
elseif u then
  redis.call('HSET', end_user, 'used', user_used, 'held', user_held)
end
for at = 1, #thresholds, 24 do
  local percent, of_tokens, of_spend = struct.unpack('<ddd', thresholds, at)
  if used_after >= of_tokens and used_after - tokens < of_tokens then
    tell('period_tokens', percent, period_max, used_after)
  end
  if spent_after >= of_spend and spent_after - charge < of_spend then tell('spend', percent, spend_max, spent_after) end
end
if came_to_nothing then
  redis.call('DEL', conversation)
elseif is_same then
  put_conversation(conversation, nil, first, last, live, cap, used, held, input_used, input_held, charged, tier, version,
    is_hash)
end

if closes then
  if is_same then
    -- An id of two conversations leads to none. Of two answers that were cut in the same text the later one counts.
    local name = string.sub(ARGV[1], name_at)
    for place = threads_from, #KEYS do
      local other = redis.call('SET', KEYS[place], name, 'PX', HOUR_MS, 'GET')
      if other and other ~= name and not string.find(KEYS[place], ':tail-', 1, true) then
        redis.call('SET', KEYS[place], '', 'PX', HOUR_MS)
      end
    end
  end
  if is_claimed and answer == '' then
    redis.call('DEL', once)
  elseif is_claimed then
    redis.call('HSET', once, 'answer', answer)
    redis.call('PEXPIRE', once, DAY_MS)
    if #past > 0 then redis.call('HDEL', answers, unpack(past)) end
    redis.call('HINCRBY', answers, hour, #answer + 400)
    redis.call('PEXPIRE', answers, DAY_MS + 2 * HOUR_MS)
  end
  redis.pcall('HINCRBY', pace, 'live', -1)
  redis.call('HDEL', inflight, hold_id, PROGRESS .. hold_id)
  return reply
end
local sofar, owes = string.match(progress, '^%d+ (%d+) ([01])')
local _, _, _, _, _, _, deadline, admitted, grant, allowed, left, period_left, rest_at = struct.unpack(HOLD, hold)
redis.call('HSET', inflight, hold_id, packed_hold('suspect', held_tokens - tokens, held_money - charge, held_input - input,
  hold_first, hold_charged, deadline, admitted, grant, allowed, left, period_left, string.sub(hold, rest_at)),
  PROGRESS .. hold_id, table.concat({written(now), sofar or '0', owes or '0', written(tokens)}, ' '))
return reply
