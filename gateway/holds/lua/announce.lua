#!lua flags=allow-oom
-- Writes a live call's hold again after a rebuild, as its worker remembers it or the rebuild read it before. The rebuilt
-- windows contain what the ledger has; in-flight calls are added here. Replies 'announced', 'known', 'settled' or 'rebuild'.
-- KEYS[7], the end user's, is present only where the end user's tokens are limited.
local state, window, conversation, pace, inflight, settled, end_user =
  KEYS[1], KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6], KEYS[7]
local generation, hold_id, owner, deadline, admitted, grant = ARGV[1], ARGV[2], ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local tokens, money, input, sofar, first, charged = ARGV[7], ARGV[8], ARGV[9], ARGV[10], ARGV[11], ARGV[12]
local tier, version, cap, facts, told, owes_input = ARGV[13], ARGV[14], ARGV[15], ARGV[16], ARGV[17], ARGV[18]

local known = redis.call('HMGET', state, 'generation', 'rebuilding')
if known[1] ~= generation and known[2] ~= generation then return 'rebuild' end
if redis.call('HEXISTS', settled, hold_id) == 1 then return 'settled' end
if redis.call('HEXISTS', inflight, hold_id) == 1 then return 'known' end
local now = time_ms(told)
local terms, its_first, last, calls, its_cap, used, held, input_used, input_held, was_charged, kind =
  conversation_at(conversation)
local _, is_older, window_used, window_held, spend_used, spend_held, included, tokens_max, spend_max =
  window_at(window)
local user_held = end_user and redis.call('HGET', end_user, 'held')
local live = redis.call('HGET', pace, 'live')
-- A conversation that the ledger has restored begins at its first record, and the call joins it; otherwise the call's own
-- values begin the conversation.
if not its_first then
  terms, its_first, last, calls, its_cap, used, held, input_used, input_held, was_charged =
    tier .. '\0' .. version .. '\0', whole(first), whole(admitted), 0, whole(cap), 0, 0, 0, 0, whole(charged)
end
calls, held, input_held = bounded(calls + 1), bounded(held + tokens), bounded(input_held + input)
window_held, spend_held = bounded(window_held + tokens), bounded(spend_held + money)
local running = bounded(whole(live) + 1)

local hold = struct.pack(HOLD, 'live', tokens, money, input, its_first, charged, deadline, admitted, grant, grant, 0, NONE)
redis.call('HSET', inflight, hold_id, hold .. owner .. '\0' .. window .. '\0' .. facts,
  PROGRESS .. hold_id, table.concat({written(now), sofar, owes_input, '0'}, ' '))
put_window(window, is_older, window_used, window_held, spend_used, spend_held, included, tokens_max, spend_max)
if end_user then redis.call('HSET', end_user, 'held', bounded(whole(user_held) + tokens)) end
put_conversation(conversation, math.max(whole(deadline) - now, 0) + HOUR_MS, kind, terms, its_first, last, calls, its_cap,
  used, held, input_used, input_held, was_charged)
redis.call('HSET', pace, 'live', running)
return 'announced'
