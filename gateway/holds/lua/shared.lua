-- What every verb shares. Whole numbers stay below 2^53, where doubles are exact; `written` keeps all their digits
-- (tostring and .. keep 14) and drops what comes after the point. Amounts of money are never added here:
-- HINCRBY does it, from strings.
local HOUR_MS = 3600000
local DAY_MS = 24 * HOUR_MS

local function whole(text)
  if text == false or text == nil or text == '' then return 0 end
  return tonumber(text)
end

local function written(number)
  return string.format('%d', number)
end

-- A reply as it is kept, to be decoded if it is asked for again: words without anything that JSON would escape.
local function kept(reply)
  return '["' .. table.concat(reply, '","') .. '"]'
end

local function now_us()
  local time = redis.call('TIME')
  return tonumber(time[1]) * 1000000 + tonumber(time[2])
end

local function now_ms()
  return math.floor(now_us() / 1000)
end

-- A limit that is not set is infinite.
local function limit(text)
  if text == '' then return math.huge end
  return tonumber(text)
end

-- Adds to a hash field and returns what it is now; a zero is left unwritten.
local function add(key, field, amount)
  if amount ~= '0' and amount ~= '-0' then return redis.call('HINCRBY', key, field, amount) end
end

local function less(amount)
  if string.sub(amount, 1, 1) == '-' then return string.sub(amount, 2) end
  return '-' .. amount
end

-- A conversation ends an hour after its last call, a day after its first.
local function conversation_is_open(first, last, live, now)
  if not first then return false end
  return now - whole(first) < DAY_MS and (whole(live) > 0 or now - whole(last) < HOUR_MS)
end
