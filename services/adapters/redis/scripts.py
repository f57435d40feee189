"""What Redis must do as one step, in its Lua. All sizes are bytes, all times milliseconds."""

from __future__ import annotations

from services.adapters.redis.connection import Script

MGET = Script("""
-- The values of KEYS, as many of the first ones as fit into ARGV[1] bytes, and one at least.
local found, size, most = {}, 0, tonumber(ARGV[1])
for first = 1, #KEYS, 16 do
  local values = redis.call('MGET', unpack(KEYS, first, math.min(first + 15, #KEYS)))
  for i = 1, #values do
    if values[i] then size = size + #values[i] end
    if size > most and #found > 0 then return found end
    found[#found + 1] = values[i]
  end
end
return found
""")

SWAP = Script("""
-- Set, with the words from ARGV[2] on, if the value has the version ARGV[1].
local held = redis.call('GET', KEYS[1])
if not held or redis.sha1hex(held) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], unpack(ARGV, 2))
return 1
""")

READ = Script("""
-- Read a collection with the command ARGV[4] and its words, if that is at most ARGV[1] items and ARGV[2] bytes.
-- ARGV[3] tells its length, and is empty where the command has a limit of its own.
if ARGV[3] ~= '' then
  local items = redis.call(ARGV[3], KEYS[1])
  local start, stop = tonumber(ARGV[5]), tonumber(ARGV[6])
  if start then
    if start < 0 then start = math.max(items + start, 0) end
    if stop < 0 then stop = items + stop end
    items = math.min(stop, items - 1) - start + 1
  end
  if items > tonumber(ARGV[1]) then return redis.error_reply('TOOBIG') end
end
local found, size = redis.call(ARGV[4], KEYS[1], unpack(ARGV, 5)), 0
for i = 1, #found do size = size + #found[i] end
if size > tonumber(ARGV[2]) then return redis.error_reply('TOOBIG') end
return found
""")

POP = Script("""
-- Take up to ARGV[1] values with the command ARGV[3] from the end ARGV[4], and no more than ARGV[2] bytes, but one.
local found, size = {}, 0
for i = 1, tonumber(ARGV[1]) do
  local value = redis.call('LINDEX', KEYS[1], ARGV[4])
  if not value then break end
  size = size + #value
  if i > 1 and size > tonumber(ARGV[2]) then break end
  redis.call(ARGV[3], KEYS[1])
  found[i] = value
end
return found
""")

ACQUIRE = Script("""
-- Take the lock KEYS[1] for ARGV[1] ms as the holder ARGV[2]; the token comes from the clock, and grows in KEYS[2] also
-- where the clock does not. Answers the token, or nothing and how long the lock is held.
local held = redis.call('GET', KEYS[1])
if held then
  local token, holder = string.match(held, '^(%d+):(.*)$')
  if holder == '' or holder ~= ARGV[2] then return {false, redis.call('PTTL', KEYS[1])} end
  redis.call('PEXPIRE', KEYS[1], ARGV[1])
  return {token, 0}
end
local time = redis.call('TIME')
local token = math.max(time[1] * 1000000 + time[2], (tonumber(redis.call('GET', KEYS[2])) or 0) + 1)
token = string.format('%.0f', token)
redis.call('SET', KEYS[2], token)
redis.call('SET', KEYS[1], token .. ':' .. ARGV[2], 'PX', ARGV[1])
return {token, 0}
""")

RENEW = Script("""
-- Hold the lock KEYS[1] for ARGV[2] ms from now, if its token is ARGV[1].
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '^%d+') ~= ARGV[1] then return 0 end
return redis.call('PEXPIRE', KEYS[1], ARGV[2])
""")

RELEASE = Script("""
-- Give the lock KEYS[1] back, if its token is ARGV[1], and wake who listens on the channel KEYS[2].
local held = redis.call('GET', KEYS[1])
if not held or string.match(held, '^%d+') ~= ARGV[1] then return 0 end
redis.call('DEL', KEYS[1])
redis.call('PUBLISH', KEYS[2], '')
return 1
""")

# Limits answer: whether it is allowed, what remains, when to try again, when all of it may pass again.
# ARGV: limit, window, cost, burst.

FIXED_WINDOW = Script("""
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local used, left = tonumber(redis.call('GET', KEYS[1])) or 0, redis.call('PTTL', KEYS[1])
if used + cost > limit then return {0, math.max(limit - used, 0), left, left} end
redis.call('INCRBY', KEYS[1], cost)
if left < 0 then
  redis.call('PEXPIRE', KEYS[1], window)
  left = window
end
return {1, limit - used - cost, 0, left}
""")

SLIDING_WINDOW = Script("""
-- A hash of counts by the beginning of a sixtieth of the window; a count is forgotten when all of it is too old.
local limit, window, cost = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3])
local time, width = redis.call('TIME'), math.ceil(window / 60)
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local fields, used, starts, counts = redis.call('HGETALL', KEYS[1]), 0, {}, {}
for i = 1, #fields, 2 do
  local start, count = tonumber(fields[i]), tonumber(fields[i + 1])
  if start + width + window <= now then
    redis.call('HDEL', KEYS[1], fields[i])
  else
    used, starts[#starts + 1], counts[start] = used + count, start, count
  end
end
table.sort(starts)
if used + cost > limit then
  local freed, again = 0, 0
  for _, start in ipairs(starts) do
    freed, again = freed + counts[start], start + width + window - now
    if used - freed + cost <= limit then break end
  end
  return {0, math.max(limit - used, 0), again, starts[#starts] + width + window - now}
end
local start = now - now % width
redis.call('HINCRBY', KEYS[1], string.format('%.0f', start), cost)
redis.call('PEXPIRE', KEYS[1], window + width)
return {1, limit - used - cost, 0, start + width + window - now}
""")

TOKEN_BUCKET = Script("""
local rate, cost, burst = tonumber(ARGV[1]) / tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local time, held = redis.call('TIME'), redis.call('HMGET', KEYS[1], 'tokens', 'at')
local now = time[1] * 1000 + time[2] / 1000
local tokens = tonumber(held[1]) or burst
tokens = math.min(burst, tokens + math.max(now - (tonumber(held[2]) or now), 0) * rate)
if tokens < cost then
  return {0, math.floor(tokens), math.ceil((cost - tokens) / rate), math.ceil((burst - tokens) / rate)}
end
tokens = tokens - cost
local full = math.ceil((burst - tokens) / rate)
redis.call('HSET', KEYS[1], 'tokens', string.format('%.17g', tokens), 'at', string.format('%.17g', now))
redis.call('PEXPIRE', KEYS[1], math.max(full, 1))
return {1, math.floor(tokens), 0, full}
""")

WEIGH = Script("""
-- Some more of all names from the cursor ARGV[1] on: the next cursor, then each organisation and its bytes.
local page = redis.call('SCAN', ARGV[1], 'COUNT', ARGV[2])
local sums, answer = {}, {page[1]}
for _, name in ipairs(page[2]) do
  local org = string.match(name, '^(org%-[a-z0-9]+):') or string.match(name, '^[a-z.]+:(org%-[a-z0-9]+):')
  if org then sums[org] = (sums[org] or 0) + (redis.call('MEMORY', 'USAGE', name) or 0) end
end
for org, bytes in pairs(sums) do
  answer[#answer + 1] = org
  answer[#answer + 1] = bytes
end
return answer
""")

ALL = (
    MGET, SWAP, READ, POP, ACQUIRE, RENEW, RELEASE, FIXED_WINDOW, SLIDING_WINDOW, TOKEN_BUCKET, WEIGH,
)  # fmt: skip
