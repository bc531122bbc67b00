-- What every verb shares. Whole numbers stay below 2^53, where doubles are exact; `written` keeps all their digits
-- (tostring and .. keep 14). No sum ever passes MOST: a reservation that would make one is refused, and what is settled
-- is at most what was held. Every verb reads all that it needs before its first write, and nothing after that can fail.
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

-- A sum that can be counted. What lies outside is a breach that was there before, and is found and told by others.
local function bounded(number)
  return math.max(-MOST, math.min(MOST, number))
end

-- A reply as it is kept, to be decoded if it is asked for again: words without anything that JSON would escape.
local function kept(reply)
  return '["' .. table.concat(reply, '","') .. '"]'
end

-- The time in µs, and whether this server and its asker agree about it. The server's clock may jump, the asker's cannot:
-- where they are grossly apart, it is what the asker says.
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

-- A limit that is not set is the most that can be counted.
local function limit(text)
  if text == '' then return MOST end
  return tonumber(text)
end

-- A conversation ends an hour after its last call, a day after its first.
local function conversation_is_open(first, last, live, now)
  if not first then return false end
  return now - whole(first) < DAY_MS and (whole(live) > 0 or now - whole(last) < HOUR_MS)
end
