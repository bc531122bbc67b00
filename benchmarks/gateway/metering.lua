-- The least that can be called metering, in nginx: a key, one window, a hold, its settlement, and a record, in Valkey.
-- A call holds HELD tokens, and is settled by the usage in its answer, or by the answer's events where it has no usage.
local metering = {}
local HELD, LIMIT = "4096", "1000000000000"

local RESERVE = [[
local customer = redis.call('GET', KEYS[1])
if not customer then return 'no key' end
local w = redis.call('HMGET', KEYS[2], 'used', 'held')
if (tonumber(w[1]) or 0) + (tonumber(w[2]) or 0) + tonumber(ARGV[2]) > tonumber(ARGV[3]) then return 'quota' end
redis.call('HINCRBY', KEYS[2], 'held', ARGV[2])
redis.call('SET', KEYS[3], ARGV[2])
return customer]]

local SETTLE = [[
local held = redis.call('GETDEL', KEYS[3])
if not held then return 'settled' end
redis.call('HINCRBY', KEYS[2], 'held', -tonumber(held))
redis.call('HINCRBY', KEYS[2], 'used', ARGV[2])
redis.call('XADD', KEYS[4], '*', 'id', ARGV[1], 'tokens', ARGV[2])
return 'done']]

local function ask(at, ...)
  local words = {...}
  local line = {"*", #words, "\r\n"}
  for _, word in ipairs(words) do
    line[#line + 1] = "$" .. #word .. "\r\n" .. word .. "\r\n"
  end
  local socket = ngx.socket.tcp()
  local is_there, why = socket:connect("unix:" .. at)
  if not is_there then return nil, why end
  socket:send(line)
  local reply
  reply, why = socket:receive("*l")
  if reply and reply:sub(1, 1) == "$" then reply = socket:receive(tonumber(reply:sub(2)) + 2):sub(1, -3) end
  socket:setkeepalive(60000, 1024)
  return reply, why
end

local function names(key, id)
  return "4", "{b}:key:" .. key, "{b}:window:" .. key, "{b}:hold:" .. id, "{b}:usage"
end

function metering.reserve(at)
  local key = (ngx.var.http_authorization or ""):match("^Bearer (.+)$")
  if not key then return ngx.exit(401) end
  local id = ngx.var.request_id
  local one, two, three, four, five = names(key, id)
  local reply, why = ask(at, "EVAL", RESERVE, one, two, three, four, five, id, HELD, LIMIT)
  if reply == nil then
    ngx.log(ngx.ERR, why)
    return ngx.exit(503)
  end
  if reply == "no key" then return ngx.exit(401) end
  if reply == "quota" then return ngx.exit(429) end
  ngx.ctx.key, ngx.ctx.id, ngx.ctx.events = key, id, 0
end

function metering.count()
  local chunk = ngx.arg[1]
  if chunk == "" or not ngx.ctx.id then return end
  ngx.ctx.tokens = chunk:match('"completion_tokens":%s*(%d+)') or ngx.ctx.tokens
  for _ in chunk:gmatch("data: {") do ngx.ctx.events = ngx.ctx.events + 1 end
end

local function settle(_, at, key, id, tokens)
  local one, two, three, four, five = names(key, id)
  ask(at, "EVAL", SETTLE, one, two, three, four, five, id, tokens)
end

function metering.settle(at)
  local made = ngx.ctx
  if made.id then ngx.timer.at(0, settle, at, made.key, made.id, tostring(made.tokens or made.events)) end
end

return metering
