-- What every verb shares. Whole numbers stay below 2^53, where doubles are exact; `written` keeps all their digits
-- (tostring and .. keep 14). No sum ever exceeds MOST: a reservation that would exceed it is refused, and a settlement is
-- at most what was held. Every verb reads all that it needs before its first write, and nothing after that can fail.
local HOUR_MS = 3600000
local DAY_MS = 24 * HOUR_MS
local MOST = 9007199254740991
local APART_MS = 5000

local function whole(text)
  if text == false or text == nil or text == '' then return 0 end
  return tonumber(text)
end

local function written(number)
  return string.format('%d', number)
end

-- A sum that can be counted. A number outside is an existing breach, which the census finds and reports.
local function bounded(number)
  if number > MOST then return MOST end
  if number < -MOST then return -MOST end
  return number
end

-- The time in µs, and whether this server and its caller agree about it. The server's clock may jump, the caller's cannot:
-- where they are grossly apart, the caller's time counts.
local function time_us(told_ms)
  local time = redis.call('TIME')
  local micros = tonumber(time[1]) * 1000000 + tonumber(time[2])
  if math.abs(micros - told_ms * 1000) > APART_MS * 1000 then return told_ms * 1000, false, micros end
  return micros, true, micros
end

local function time_ms(told_ms)
  local micros = time_us(told_ms)
  return math.floor(micros / 1000)
end

-- A conversation ends an hour after its last call, a day after its first.
local function conversation_is_open(first, last, live, now)
  return first and now - first < DAY_MS and (live > 0 or now - last < HOUR_MS)
end

-- Frequently written values are packed: whole numbers as doubles of eight bytes, texts up to a zero byte. Numbers as
-- texts would take most of a script's time. `gateway/holds/store/packing.py` reads and writes the same.
local NUMBERS_OF_CONVERSATION = '<ddddddddd'
local CONVERSATION = NUMBERS_OF_CONVERSATION .. 'ss'
local HOLD = '<sddddddddddd'
local PROGRESS = 'progress:'
local GRANTED, DONE = '<i8i8i8i8i8i8i8', '<i8i8i8'  -- replies, of integers of eight bytes
local NONE = -MOST - 1  -- where there is no number
local MARK_BYTES = 72  -- over 64, so that Redis keeps marks in a table from the first, not in a list

-- Returns a conversation: when it began and was last called, its live calls, cap, tokens used and held, input used and
-- held, whether its price was charged, tier and menu version; nothing where there is none. The last value is whether it is
-- a hash, as the version before writes it; such a conversation stays a hash until it ends.
local function conversation_at(name)
  local found = redis.pcall('GET', name)
  if not found then return nil end
  if type(found) == 'string' then return struct.unpack(CONVERSATION, found) end
  local c = redis.call('HMGET', name, 'first', 'last', 'live', 'cap', 'used', 'held', 'input_used', 'input_held',
    'charged', 'tier', 'version')
  if not c[1] then return nil end
  for place = 1, 9 do c[place] = whole(c[place]) end
  return c[1], c[2], c[3], c[4], c[5], c[6], c[7], c[8], c[9], c[10] or '', c[11] or '', 'hash'
end

-- Writes a conversation as it was returned; its expiry stays as before where `lasts_ms` is absent.
local function put_conversation(name, lasts_ms, first, last, live, cap, used, held, input_used, input_held, charged, tier,
    version, is_hash)
  if is_hash == 'hash' then
    redis.call('HSET', name, 'first', first, 'last', last, 'live', live, 'tier', tier, 'version', version, 'cap', cap,
      'used', used, 'held', held, 'input_used', input_used, 'input_held', input_held, 'charged', charged)
    if lasts_ms then redis.call('PEXPIRE', name, lasts_ms) end
    return
  end
  local packed =
    struct.pack(CONVERSATION, first, last, live, cap, used, held, input_used, input_held, charged, tier, version)
  if lasts_ms then
    redis.call('SET', name, packed, 'PX', lasts_ms)
  else
    redis.call('SET', name, packed, 'KEEPTTL')
  end
end

-- A window's amounts are packed in one field: tokens used and held, spend used and held, the conversations that a
-- subscription included, and the limits of the last admission, infinite where there is none. The version before has a
-- field for each; such fields are added, and written until the period is over.
local AMOUNTS = '<ddddddd'

-- Returns the amounts, whether the window is known not to add up, whether it is one of the version before, and whether a
-- change of the customer's period has moved holds out of it.
local function window_at(name)
  local found = redis.call('HMGET', name, 'amounts', 'breach', 'used', 'held', 'moved')
  local used, held, spend_used, spend_held, included, tokens_max, spend_max = 0, 0, 0, 0, 0, math.huge, math.huge
  if found[1] then
    used, held, spend_used, spend_held, included, tokens_max, spend_max = struct.unpack(AMOUNTS, found[1])
  end
  if not (found[3] or found[4]) then
    return used, held, spend_used, spend_held, included, tokens_max, spend_max, found[2], false, found[5]
  end
  local older = redis.call('HMGET', name, 'spend_used', 'spend_held', 'included', 'tokens_max', 'spend_max')
  return used + whole(found[3]), held + whole(found[4]), spend_used + whole(older[1]), spend_held + whole(older[2]),
    included + whole(older[3]), tonumber(older[4] or '') or tokens_max, tonumber(older[5] or '') or spend_max, found[2], true,
    found[5]
end

local function put_window(name, used, held, spend_used, spend_held, included, tokens_max, spend_max, is_older)
  if not is_older then
    local amounts = struct.pack(AMOUNTS, used, held, spend_used, spend_held, included, tokens_max, spend_max)
    return redis.call('HSET', name, 'amounts', amounts)
  end
  redis.call('HSET', name, 'used', used, 'held', held, 'spend_used', spend_used, 'spend_held', spend_held,
    'included', included, 'tokens_max', tokens_max < math.huge and tokens_max or '',
    'spend_max', spend_max < math.huge and spend_max or '')
  redis.call('HDEL', name, 'amounts')
end

-- A hold: its state, the tokens, money and input it has set aside, when its conversation began and whether that was
-- charged, its deadline, when it was admitted, what was granted and allowed, what was left of the conversation and the
-- period (NONE where there is no limit), then its worker, its window and the facts of the call.
local function packed_hold(stands, tokens, money, input, first, charged, deadline, admitted, grant, allowed,
    conversation_left, period_left, rest)
  return struct.pack(HOLD, stands, tokens, money, input, first, charged, deadline, admitted, grant, allowed,
    conversation_left, period_left) .. rest
end

-- Replies what follows the numbers of a hold: its worker, its window and the facts of its call.
local function texts_of(hold)
  local rest = string.sub(hold, select(13, struct.unpack(HOLD, hold)))
  local owner, window, facts_at = struct.unpack('ss', rest)
  return owner, window, string.sub(rest, facts_at)
end

-- The mark of a settled hold begins with the settlement's reply.
local function packed_mark(reply)
  return reply .. string.rep('\0', MARK_BYTES - #reply)
end
