-- The parts that several verbs share. A verb is sent only with the parts whose names it uses, because each function that a
-- script creates costs 550 instructions, more where the function uses an outer local. A part ends with an empty line.
-- Whole numbers stay below 2^53, where doubles are exact; `written` keeps all their digits, as a command's argument does,
-- while tostring and .. keep 14. No sum ever exceeds MOST: a reservation that would exceed it is refused, and a settlement
-- is at most what was held. Every verb reads everything that it needs before its first write; no step after that can fail,
-- except where a verb says so.
local HOUR_MS = 3600000

local DAY_MS = 24 * 3600000

local MOST = 9007199254740991

local NONE = -9007199254740992  -- stands for an absent number

local function whole(text)
  if not text or text == '' then return 0 end
  return text + 0  -- a text is read once; tonumber reads it twice
end

local function written(number)
  return string.format('%d', number)
end

-- Returns a sum, limited to what can be counted. A sum beyond that is an existing breach, which the census finds and reports.
local function bounded(number)
  if number > 9007199254740991 then return 9007199254740991 end
  if number < -9007199254740991 then return -9007199254740991 end
  return number
end

-- Returns the time in µs, whether this server and its caller agree about it, and this server's own time. The server's clock
-- may jump, the caller's cannot: where the two are more than 5 s apart, the caller's time counts.
local function time_us(told_ms)
  local time = redis.call('TIME')
  local micros, told = time[1] * 1000000 + time[2], told_ms * 1000
  if micros > told + 5000000 or micros < told - 5000000 then return told, false, micros end
  return micros, true, micros
end

-- Returns the time in ms.
local function time_ms(told_ms)
  local micros = time_us(told_ms)
  return math.floor(micros / 1000)
end

-- Frequently written values are packed: whole numbers as doubles of eight bytes, texts with a zero byte at the end. Numbers
-- as texts would take most of a script's time. `gateway/holds/store/packing.py` reads and writes the same form.
local GRANTED = '<i8i8i8i8i8i8i8'  -- the reply to an admitted reservation, integers of eight bytes

-- The reply to a settlement. The hold's mark is this reply three times, because a hash with a value over 64 bytes is a table
-- from its first field on, not a list.
local DONE = '<i8i8i8'

-- Returns a conversation: its terms (tier and menu version, each with a zero byte at its end), when it began and was last
-- called, its live calls, cap, tokens used and held, input used and held, whether its price was charged; nil where the
-- conversation is absent. The last value is 'hash' where the previous version wrote the conversation as a hash; such a
-- conversation stays a hash until it ends.
local function conversation_at(name)
  local found = redis.pcall('GET', name)
  if not found then return nil end
  if type(found) == 'string' then return string.sub(found, 73), struct.unpack('<ddddddddd', found) end
  local c = redis.call('HMGET', name, 'first', 'last', 'live', 'cap', 'used', 'held', 'input_used', 'input_held',
    'charged', 'tier', 'version')
  if not c[1] then return nil end
  for place = 1, 9 do c[place] = tonumber(c[place]) or 0 end
  c[10], c[11] = 'hash', (c[10] or '') .. '\0' .. (c[11] or '') .. '\0'
  return c[11], unpack(c, 1, 10)
end

-- Writes a conversation in the form in which it was read: `kind` is the last value that `conversation_at` returned. Without
-- `lasts_ms` its expiry stays unchanged.
local function put_conversation(name, lasts_ms, kind, terms, first, last, live, cap, used, held, input_used, input_held,
    charged)
  if kind == 'hash' then
    redis.call('HSET', name, 'first', first, 'last', last, 'live', live, 'cap', cap, 'used', used, 'held', held,
      'input_used', input_used, 'input_held', input_held, 'charged', charged)
    if lasts_ms then redis.call('PEXPIRE', name, lasts_ms) end
    return
  end
  local packed =
    struct.pack('<dddddddddc0', first, last, live, cap, used, held, input_used, input_held, charged, terms)
  if lasts_ms then
    redis.call('SET', name, packed, 'PX', lasts_ms)
  else
    redis.call('SET', name, packed, 'KEEPTTL')
  end
end

-- A window's amounts are packed in one field: tokens used and held, spend used and held, the conversations that a
-- subscription included, and the limits of the last admission, infinite where there is no limit. The previous version has a
-- field for each amount; such fields are added to the packed amounts, and written in their place until the period is over.
local AMOUNTS = '<ddddddd'

-- Returns whether a window is known not to add up, whether it has the fields of the previous version, and its amounts.
local function window_at(name)
  local found = redis.call('HMGET', name, 'amounts', 'breach', 'used', 'held')
  if not (found[3] or found[4]) then
    if not found[1] then return found[2], false, 0, 0, 0, 0, 0, math.huge, math.huge end
    return found[2], false, struct.unpack('<ddddddd', found[1])
  end
  local used, held, spend_used, spend_held, included, tokens_max, spend_max = 0, 0, 0, 0, 0, math.huge, math.huge
  if found[1] then
    used, held, spend_used, spend_held, included, tokens_max, spend_max = struct.unpack('<ddddddd', found[1])
  end
  local older = redis.call('HMGET', name, 'used', 'held', 'spend_used', 'spend_held', 'included', 'tokens_max', 'spend_max')
  for place = 1, 7 do older[place] = tonumber(older[place] or '') end
  return found[2], true, used + (older[1] or 0), held + (older[2] or 0), spend_used + (older[3] or 0),
    spend_held + (older[4] or 0), included + (older[5] or 0), older[6] or tokens_max, older[7] or spend_max
end

-- Writes the amounts of a window in the form in which they were read.
local function put_window(name, is_older, used, held, spend_used, spend_held, included, tokens_max, spend_max)
  if not is_older then
    redis.call('HSET', name, 'amounts',
      struct.pack('<ddddddd', used, held, spend_used, spend_held, included, tokens_max, spend_max))
    return
  end
  redis.call('HSET', name, 'used', used, 'held', held, 'spend_used', spend_used, 'spend_held', spend_held,
    'included', included, 'tokens_max', tokens_max < math.huge and tokens_max or '',
    'spend_max', spend_max < math.huge and spend_max or '')
  redis.call('HDEL', name, 'amounts')
end

-- A hold: its state, the tokens, money and input it has set aside, when its conversation began and whether the conversation
-- was charged, its deadline, when it was admitted, the tokens granted and allowed, the tokens left of the conversation and
-- of the period (NONE where there is no limit); after these its worker, its window and the facts of the call.
local HOLD = '<sddddddddddd'

-- The prefix of the field that has a hold's progress at its last renewal.
local PROGRESS = 'progress:'

-- Returns the texts of a hold: its worker, its window and the facts of its call.
local function texts_of(hold)
  local rest = string.sub(hold, select(13, struct.unpack('<sddddddddddd', hold)))
  local owner, window, facts_at = struct.unpack('ss', rest)
  return owner, window, string.sub(rest, facts_at)
end
