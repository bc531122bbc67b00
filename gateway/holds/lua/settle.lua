#!lua flags=allow-oom
-- Settles a hold once, whichever process requests it and however often. This verb serves four cases, which ARGV[1], packed,
-- distinguishes:
--   settled by its worker    expects live,    closes
--   lapsed                   expects live,    stays open as suspect with the tokens so far billed; or closes, if its
--                                             worker is proven dead or its deadline has passed
--   settled late             expects suspect, closes; a correction has the tokens beyond those already billed
--   released                 expects suspect, closes with nothing more to bill
-- KEYS after the eighth: the end user's, where its tokens are limited; the Idempotency-Key's and the bytes of kept answers,
-- where the call has such a key; then the threads to this conversation. The last part of ARGV[1] has the place of each of
-- these groups; of the first two, 0 where it is absent. The script also runs on a full server: admitted calls must be settled.
-- ARGV after the record: the thresholds of notices, packed: the period's tokens and spend, the smallest share of each that
-- is a threshold, then for each threshold its percent, its tokens and its spend; then the answers to keep.
-- Replies, packed, the charge, the tokens left of the conversation (NONE where another conversation has its key) and the
-- time; or {'suspect', tokens billed, '1' where input was owed}, or 'rebuild', 'unknown', 'renewed' (the hold was renewed
-- since the reclaimer read it).
local call = redis.call
local state, inflight, settled, window, conversation, pace, usage, notices = unpack(KEYS)
local record, thresholds = ARGV[2], ARGV[3]
local closes, has_lapsed, told, tokens, input, charge_first, charge_again, included, generation, hold_id, expects, further_at =
  struct.unpack('<ddddddddsss', ARGV[1])
closes = closes == 1

if call('HGET', state, 'generation') ~= generation then return {'rebuild'} end
local hold = call('HGET', inflight, hold_id)
if not hold then  -- a hold that exists is not settled: one step removes it and leaves the mark
  local mark = call('HGET', settled, hold_id)
  return mark and string.sub(mark, 1, 24) or {'unknown'}
end
local now = math.floor(time_us(told) / 1000)
local stands, held_tokens, held_money, held_input, hold_first, hold_charged = struct.unpack('<sddddd', hold)
local lapsed_with, kept_max, end_user_at, once_at, threads_from, name = '', 0, 0, 0, #KEYS + 1, ''
if has_lapsed == 1 or KEYS[9] then
  local name_at
  kept_max, end_user_at, once_at, threads_from, lapsed_with, name_at = struct.unpack('<dddds', ARGV[1], further_at)
  name = string.sub(ARGV[1], name_at)
end
local end_user, once, answers = KEYS[end_user_at], KEYS[once_at], KEYS[once_at + 1]
local progress = ''
if has_lapsed == 1 or stands ~= expects then
  progress = call('HGET', inflight, PROGRESS .. hold_id) or ''
  if has_lapsed == 0 then
    local owes, before = string.match(progress, '^%d+ %d+ ([01]) (%d+)')
    return {stands, before, owes}
  end
  if stands ~= expects or progress ~= lapsed_with then return {'renewed'} end
end

-- The price of a conversation is charged with its first record that has an output token, unless a subscription includes the
-- conversation.
local terms, first, last, live, cap, used, held, input_used, input_held, charged, kind = conversation_at(conversation)
if not string.find(hold, window .. '\0', 1, true) then  -- the customer's period has changed: the hold names its present window
  local _, its_window, facts = texts_of(hold)
  window, end_user = its_window, end_user and string.match(facts, '"end_user_window":"([^"]*)"')
end
local _, is_older, window_used, window_held, spend_used, spend_held, in_subscription, tokens_max, money_max =
  window_at(window)
local u = end_user and call('HMGET', end_user, 'used', 'held')
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
local conversation_left, came_to_nothing, further = NONE, false, {}
if is_same then
  used, held = bounded(used + tokens), bounded(held - freed_tokens)
  input_used, input_held = bounded(input_used + input), bounded(input_held - freed_input)
  if closes then live, last = live - 1, now end
  came_to_nothing = record == '' and live <= 0 and used == 0 and input_used == 0 and charged ~= 1
  conversation_left = cap - used - held
  further = {'cap', cap}
end
if newly_included then further[#further + 1], further[#further + 2] = 'included', '1' end
local user_used, user_held = 0, 0
if u then user_used, user_held = bounded((u[1] or 0) + tokens), bounded((u[2] or 0) - freed_tokens) end

-- The answer of a call with an Idempotency-Key is kept for a day, where the customer's budget has room. Its bytes count
-- under the hour in which it was kept, for as long as it may exist; without an answer the key is free again.
local answer, is_claimed, hour, past = '', false, nil, nil
if once and closes then
  hour, past = math.floor(now / HOUR_MS), {}
  answer = charge == charge_first and ARGV[4] or ARGV[5]
  is_claimed = call('HGET', once, 'call') == hold_id
  local size, counted = #answer + 400, call('HGETALL', answers)
  local room = kept_max - size
  for place = 1, #counted, 2 do
    local age = hour - counted[place]
    if age > 24 or age < -1 then past[#past + 1] = counted[place] else room = room - counted[place + 1] end
  end
  if room < 0 then answer = '' end
end

-- The first writes may fail, where the keys of the marks or the stream have another type; then the hold is not settled.
-- Later writes go to keys that were read. Writes to the notices, the threads and the customer's in-flight calls may fail; a
-- failure there changes nothing else.
local reply = struct.pack(DONE, charge, conversation_left, now)
if closes then call('HSET', settled, hold_id, reply .. reply .. reply) end
local added = record == ''
  or redis.pcall('XADD', usage, '*', 'record', record, 'charge', charge, 'settled', now, unpack(further))
if type(added) == 'table' then
  call('HDEL', settled, hold_id)
  return redis.error_reply(added.err)
end
if newly_included then in_subscription = in_subscription + 1 end
put_window(window, is_older, used_after, bounded(window_held - freed_tokens), spent_after, bounded(spend_held - freed_money),
  in_subscription, tokens_max, money_max)
if u and user_used == 0 and user_held == 0 then
  call('DEL', end_user)
elseif u then
  call('HSET', end_user, 'used', user_used, 'held', user_held)
end
if thresholds ~= '' then
  local period_max, spend_max, least_tokens, least_spend = struct.unpack('<dddd', thresholds)
  if used_after >= least_tokens or spent_after >= least_spend then
    -- Where the use of a limit reaches a threshold, a notice is written at that moment, once a period for each amount of the
    -- limit, so again after the limit was raised.
    local function tell(limit, percent, max, after)
      local told_of, amount = string.format('told_%s_%d', limit, percent), string.format('%d', max)
      if redis.call('HGET', window, told_of) == amount then return end
      redis.call('HSET', window, told_of, amount)
      local _, _, facts = texts_of(hold)
      redis.pcall('XADD', notices, '*', 'limit', limit, 'percent', percent, 'max', amount, 'used', after, 'facts', facts)
    end
    for at = 33, #thresholds, 24 do
      local percent, of_tokens, of_spend = struct.unpack('<ddd', thresholds, at)
      if used_after >= of_tokens and used_after - tokens < of_tokens then
        tell('period_tokens', percent, period_max, used_after)
      end
      if spent_after >= of_spend and spent_after - charge < of_spend then
        tell('spend', percent, spend_max, spent_after)
      end
    end
  end
end
if came_to_nothing then
  call('DEL', conversation)
elseif is_same then
  put_conversation(conversation, nil, kind, terms, first, last, live, cap, used, held, input_used, input_held, charged)
end

if closes then
  if is_same then
    -- An id that two conversations have leads to neither. Where two cut answers end in the same text, the later answer counts.
    for place = threads_from, #KEYS do
      local other = redis.pcall('SET', KEYS[place], name, 'PX', HOUR_MS, 'GET')
      if type(other) == 'string' and other ~= name and not string.find(KEYS[place], ':tail-', 1, true) then
        call('SET', KEYS[place], '', 'PX', HOUR_MS)
      end
    end
  end
  if is_claimed and answer == '' then
    call('DEL', once)
  elseif is_claimed then
    call('HSET', once, 'answer', answer)
    call('PEXPIRE', once, DAY_MS)
    if #past > 0 then call('HDEL', answers, unpack(past)) end
    call('HINCRBY', answers, hour, #answer + 400)
    call('PEXPIRE', answers, DAY_MS + 2 * HOUR_MS)
  end
  redis.pcall('HINCRBY', pace, 'live', -1)
  call('HDEL', inflight, hold_id, PROGRESS .. hold_id)
  return reply
end
local sofar, owes = string.match(progress, '^%d+ (%d+) ([01])')
local _, _, _, _, _, _, deadline, admitted, grant, allowed, left, period_left, rest_at = struct.unpack(HOLD, hold)
local suspect = struct.pack(HOLD, 'suspect', held_tokens - tokens, held_money - charge, held_input - input, hold_first,
  hold_charged, deadline, admitted, grant, allowed, left, period_left)
call('HSET', inflight, hold_id, suspect .. string.sub(hold, rest_at),
  PROGRESS .. hold_id, string.format('%d %s %s %d', now, sofar or '0', owes or '0', tokens))
return reply
