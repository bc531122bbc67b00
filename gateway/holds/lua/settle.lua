#!lua flags=allow-oom
-- Books what a hold came to: once, whoever asks and however often. One verb for four moments, told by ARGV, whose first
-- is a list in JSON:
--   settled by its worker    expects live,    closes
--   lapsed                   expects live,    stays open as suspect with the tokens so far billed; or closes, if its
--                                             owner is proven dead
--   settled late             expects suspect, closes: the tokens beyond what was billed, as a correction
--   released                 expects suspect, closes with nothing more to bill
-- KEYS after the ninth: the end user's, where its tokens are limited, the Idempotency-Key's and the count of kept
-- answers, if there is one, then what leads later calls to this conversation. The list says where each stands, 0 where
-- it does not. It runs on a server that is full, too: what was admitted has its place in the books.
-- Replies {'done', charge, conversation_left, now}, {'suspect', billed, '1' where input was owed}, or 'rebuild', 'unknown',
-- 'settled', 'renewed' (the hold was renewed since the reclaimer looked).
local state, hold, holds, mark, window, conversation, pace, usage, notices =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7], KEYS[8], KEYS[9]
local generation, hold_id, expects, closes, lapsed_with, lease_ms, told, kept_max, tokens, input, charge_first,
  charge_again, name, included, end_user_at, once_at, threads_from, period_max, period_near, spend_max, spend_near =
  unpack(cjson.decode(ARGV[1]))
local record, answer_first, answer_again = ARGV[2], ARGV[3], ARGV[4]
local end_user, once, answers = KEYS[end_user_at], KEYS[once_at], KEYS[once_at + 1]

if redis.call('HGET', state, 'generation') ~= generation then return {'rebuild'} end
local h = redis.call('HMGET', hold, 'state', 'tokens', 'money', 'input', 'sofar', 'billed', 'first', 'charged', 'facts',
  'owes_input')
if not h[1] then  -- a hold that is there is not settled: one step removes it and leaves the mark
  local done = redis.call('GET', mark)
  return done and cjson.decode(done) or {'unknown'}
end
local now = time_ms(told)
if lapsed_with then
  local lease_until = redis.call('ZSCORE', holds, hold_id)
  if not lease_until or tonumber(lease_until) > now or h[1] ~= expects or h[5] ~= lapsed_with then return {'renewed'} end
elseif h[1] ~= expects then
  return {h[1], h[6], h[10] or ''}
end

-- The price of a conversation goes onto the first record with an output token, but for those a subscription includes.
local c = redis.call('HMGET', conversation, 'first', 'charged', 'cap', 'used', 'held', 'input_used', 'input_held',
  'live', 'last')
local w = redis.call('HMGET', window, 'used', 'held', 'spend_used', 'spend_held', 'included')
local u = end_user and redis.call('HMGET', end_user, 'used', 'held')
local is_same = c[1] == h[7]
local charged = h[8]
if is_same then charged = c[2] end
local charge, newly_included = charge_again, false
if tokens ~= '0' and charged ~= '1' then
  if whole(w[5]) < whole(included) then newly_included = true else charge = charge_first end
  charged = '1'
end

local billed, spent, said = whole(tokens), whole(charge), whole(input)
local freed_tokens, freed_money, freed_input = billed, spent, said
if closes then freed_tokens, freed_money, freed_input = whole(h[2]), whole(h[3]), whole(h[4]) end
local used_after, spent_after = bounded(whole(w[1]) + billed), bounded(whole(w[3]) + spent)
local windowed = {'used', written(used_after), 'held', written(bounded(whole(w[2]) - freed_tokens)),
  'spend_used', written(spent_after), 'spend_held', written(bounded(whole(w[4]) - freed_money))}
if newly_included then
  windowed[9], windowed[10] = 'included', written(whole(w[5]) + 1)
end
local conversation_left, talk, talk_is_empty = '', nil, false
if is_same then
  local used, held = bounded(whole(c[4]) + billed), bounded(whole(c[5]) - freed_tokens)
  local input_used, input_held = bounded(whole(c[6]) + said), bounded(whole(c[7]) - freed_input)
  local live, last = whole(c[8]), c[9]
  if closes then live, last = live - 1, written(now) end
  talk = {'charged', charged, 'last', last, 'live', written(live), 'used', written(used), 'held', written(held),
    'input_used', written(input_used), 'input_held', written(input_held)}
  talk_is_empty = record == '' and live <= 0 and used == 0 and input_used == 0 and charged ~= '1'
  conversation_left = written(tonumber(c[3]) - used - held)
end
local entry = {'record', record, 'charge', charge, 'settled', written(now)}
if is_same then entry[7], entry[8] = 'cap', c[3] end
if newly_included then entry[#entry + 1], entry[#entry + 2] = 'included', '1' end
local user_used, user_held = 0, 0
if u then user_used, user_held = bounded(whole(u[1]) + billed), bounded(whole(u[2]) - freed_tokens) end

-- The answer of a call with an Idempotency-Key is kept for a day, where there is room in the customer's budget. It is
-- counted by the hour in which it was kept, for as long as it may be there; without it the key is free again.
local answer, is_claimed, hour, past = '', false, written(math.floor(now / HOUR_MS)), {}
if once and closes then
  answer = charge == charge_first and answer_first or answer_again
  is_claimed = redis.call('HGET', once, 'call') == hold_id
  local size, counted = #answer + 400, redis.call('HGETALL', answers)
  local room = whole(kept_max) - size
  for place = 1, #counted, 2 do
    local age = hour - counted[place]
    if age > 24 or age < -1 then past[#past + 1] = counted[place] else room = room - counted[place + 1] end
  end
  if room < 0 then answer = '' end
end

-- What is used of a limit has come to a threshold of it: told at that moment, and once a period.
local function tell_if_reached(limit, percent, threshold, max, added, after)
  if threshold == '' or after < whole(threshold) or after - added >= whole(threshold) then return end
  if redis.call('HSETNX', window, 'told_' .. limit .. '_' .. percent, '1') == 0 then return end
  redis.pcall('XADD', notices, '*', 'limit', limit, 'percent', percent, 'max', max, 'used', written(after),
    'facts', h[9])
end

-- The first write may fail, where the stream is none. Those after it go to what was read; where they do not, they may fail.
if record ~= '' then redis.call('XADD', usage, '*', unpack(entry)) end
redis.call('HSET', window, unpack(windowed))
if u and user_used == 0 and user_held == 0 then
  redis.call('DEL', end_user)
elseif u then
  redis.call('HSET', end_user, 'used', written(user_used), 'held', written(user_held))
end
tell_if_reached('period_tokens', '80', period_near, period_max, billed, used_after)
tell_if_reached('period_tokens', '100', period_max, period_max, billed, used_after)
tell_if_reached('spend', '80', spend_near, spend_max, spent, spent_after)
tell_if_reached('spend', '100', spend_max, spend_max, spent, spent_after)
if talk_is_empty then redis.call('DEL', conversation) elseif talk then redis.call('HSET', conversation, unpack(talk)) end

local reply = {'done', charge, conversation_left, written(now)}
if closes then
  if is_same then
    -- An id that fits two conversations leads to none. Of two answers that were cut in the same text the later one counts.
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
  redis.call('DEL', hold)
  redis.pcall('ZREM', holds, hold_id)
  redis.call('SET', mark, kept(reply), 'PX', DAY_MS)
  return reply
end
redis.call('HSET', hold, 'state', 'suspect', 'billed', tokens, 'tokens', written(whole(h[2]) - billed),
  'money', written(whole(h[3]) - spent), 'input', written(whole(h[4]) - said))
redis.pcall('ZADD', holds, written(now + lease_ms), hold_id)
return reply
