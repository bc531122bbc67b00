#!lua flags=allow-oom
-- In one step, puts in force the terms of a customer whose period or time zone has changed, and begins the customer's new
-- window with everything used and held in it. A hold of a call that was admitted within the new period moves there.
-- KEYS: inflight, usage, customer, window, then the end users' of the period. ARGV: the stream's last id at which the sums of
-- records end; the customer's revision and body; when the period starts and ends (ms); the amounts, packed; the prefix of all
-- names of the customer's windows; the prefix of the names of its end users' keys in the period; then the tokens of each end
-- user.
-- Replies {'put'}, {'later'} where a later revision is in force already, or {'moved', the stream's last id} where records
-- have come since.
local inflight, usage, customer, window = KEYS[1], KEYS[2], KEYS[3], KEYS[4]
local read_to, rev, body, period_start, period_end, amounts, windows, end_users = unpack(ARGV, 1, 8)

local info, last = redis.pcall('XINFO', 'STREAM', usage), '0-0'
for place = 1, info.err and 0 or #info, 2 do
  if info[place] == 'last-generated-id' then last = info[place + 1] end
end
if whole(redis.call('HGET', customer, 'rev')) >= whole(rev) then return {'later'} end
if last ~= read_to then return {'moved', last} end

-- Collect the moved holds; by window and by end user's key, the amounts that leave with them; by end user's key, the tokens
-- that calls hold in the new period.
local holds, leaving, users_left, held_by_user = {}, {}, {}, {}
local held, spend_held = 0, 0
local entries = redis.call('HGETALL', inflight)
for place = 1, #entries, 2 do
  local hold = entries[place + 1]
  if string.find(hold, '^%a') then  -- not the progress of a call
    local stands, tokens, money, input, first, charged, deadline, admitted, grant, allowed, left, period_left =
      struct.unpack(HOLD, hold)
    local owner, name, facts = texts_of(hold)
    if string.sub(name, 1, #windows) == windows and admitted >= whole(period_start) and admitted < whole(period_end) then
      local from = string.match(facts, '"period_start":(%d+)')
      facts = string.gsub(facts, '"period_start":%d+', '"period_start":' .. period_start, 1)
      facts = string.gsub(facts, '"period_end":%d+', '"period_end":' .. period_end, 1)
      local before, start, digest = string.match(facts, '"end_user_window":"([^"]*:)(%d+):(%x+)"')
      if before and start == from then
        facts = string.gsub(facts, '"end_user_window":"[^"]*"',
          '"end_user_window":"' .. end_users .. digest .. '"', 1)
        held_by_user[end_users .. digest] = (held_by_user[end_users .. digest] or 0) + tokens
        local its = before .. start .. ':' .. digest
        if name ~= window then users_left[its] = (users_left[its] or 0) + tokens end
      end
      if name ~= window then
        local gone = leaving[name] or {0, 0}
        leaving[name] = {gone[1] + tokens, gone[2] + money}
      end
      held, spend_held = held + tokens, spend_held + money
      local moved = struct.pack(HOLD, stands, tokens, money, input, first, charged, deadline, admitted, grant, allowed, left,
        period_left)
      holds[#holds + 1], holds[#holds + 2] = entries[place], moved .. owner .. '\0' .. window .. '\0' .. facts
    end
  end
end
local used, _, spend_used, _, included, tokens_max, spend_max = struct.unpack(AMOUNTS, amounts)
for name, gone in pairs(leaving) do
  local _, is_older, its_used, its_held, its_spent, its_spend_held, its_included, its_max, its_spend_max =
    window_at(name)
  leaving[name] = {is_older, its_used, bounded(its_held - gone[1]), its_spent, bounded(its_spend_held - gone[2]),
    its_included, its_max, its_spend_max}
end

-- A key of another type ends the script here. No write from here on can fail. A window that an earlier period of this
-- customer left under the same name is written anew.
for place = 4, #KEYS do redis.call('HEXISTS', KEYS[place], 'held') end
for name in pairs(held_by_user) do redis.call('HEXISTS', name, 'held') end
for name, tokens in pairs(users_left) do
  users_left[name] = bounded(whole(redis.call('HGET', name, 'held')) - tokens)
end
for name, left in pairs(leaving) do
  put_window(name, unpack(left, 1, 8))
  redis.call('HSET', name, 'moved', '1')  -- read by workers of the previous version
end
for name, its_held in pairs(users_left) do redis.call('HSET', name, 'held', its_held) end
for place = 1, #holds, 2 do redis.call('HSET', inflight, holds[place], holds[place + 1]) end
redis.call('HDEL', window, 'used', 'held', 'spend_used', 'spend_held', 'included', 'tokens_max', 'spend_max')
put_window(window, false, bounded(used), bounded(held), bounded(spend_used), bounded(spend_held), included, tokens_max,
  spend_max)
redis.call('HSET', window, 'carried', '1')  -- its period may be longer than that in the customer's record
for place = 5, #KEYS do
  redis.call('HSET', KEYS[place], 'used', ARGV[place + 4], 'held', held_by_user[KEYS[place]] or 0, 'carried', '1')
  held_by_user[KEYS[place]] = nil
end
for name, tokens in pairs(held_by_user) do redis.call('HSET', name, 'used', 0, 'held', tokens, 'carried', '1') end
redis.call('HSET', customer, 'rev', rev, 'body', body)
return {'put'}
