-- Reads windows of one bucket and every open hold of the bucket at one moment; changes nothing.
-- KEYS: state, inflight, the holds of the previous version, then windows. ARGV: generation.
-- Replies {'rebuild'}; or {'counted', for each hold its window, tokens and money, in one flat list; for each window the
-- values that `gateway/holds/store/packing.py` reads}.
if redis.call('HGET', KEYS[1], 'generation') ~= ARGV[1] then return {'rebuild'} end
local held, windows = {}, {}
local function add(window, tokens, money)
  local place = #held
  held[place + 1], held[place + 2], held[place + 3] = window, tokens, money
end
for _, text in ipairs(redis.call('HVALS', KEYS[2])) do
  if string.find(text, '^%a') then  -- not the progress of a call
    local _, tokens, money, _, _, _, _, _, _, _, _, _, rest_at = struct.unpack(HOLD, text)
    local _, window = struct.unpack('ss', string.sub(text, rest_at))
    add(window, written(tokens), written(money))
  end
end
for _, id in ipairs(redis.call('ZRANGE', KEYS[3], 0, -1)) do
  local hold = redis.call('HMGET', string.sub(KEYS[3], 1, -2) .. ':' .. id, 'window', 'tokens', 'money')
  if hold[1] then add(hold[1], hold[2], hold[3]) end
end
for place = 4, #KEYS do
  windows[place - 3] =
    redis.call('HMGET', KEYS[place], 'amounts', 'used', 'held', 'spend_used', 'spend_held', 'included', 'tokens_max', 'spend_max')
end
return {'counted', held, windows}
