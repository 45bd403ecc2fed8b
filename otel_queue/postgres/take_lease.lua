-- Looks at the generation, and hands out the lease to make the next one if that is due and nobody has it.
--
-- KEYS[1] HASH  fence: token of the latest lease; lease_until; failed_at, failure: of the last refresh, if it failed;
--               token, time, generation: the newest generation. Times are Redis microseconds. TTL
-- ARGV[1] age in microseconds at which a generation is due for replacement
-- ARGV[2] duration of the lease in microseconds; 0 to look only
-- ARGV[3] microseconds to wait after a failed refresh
-- ARGV[4] token of the generation that the caller has, which is not sent again; "" for none
-- ARGV[5] token of a generation that the caller cannot read, which counts as absent; "" for none
-- ARGV[6] TTL in milliseconds
-- Returns {now, token of the lease or "", token of the generation or "", generation or nil, failure or nil}.
-- A retry may find the lease taken by the first try; it then ends by itself.

local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local held = redis.call('HMGET', KEYS[1], 'fence', 'lease_until', 'failed_at', 'failure', 'token', 'time')
-- What is no number counts as not there, so that a hash somebody spoiled is put right by the next refresh.
local function time_of(value) return tonumber(value or 0) or 0 end
local fence, lease_until, failed_at = time_of(held[1]), time_of(held[2]), time_of(held[3])
local failure, token, made_at = held[4], held[5] or '', time_of(held[6])

local is_due = token == '' or token == ARGV[5] or now - made_at >= tonumber(ARGV[1])
local may_try = failed_at == 0 or now - failed_at >= tonumber(ARGV[3])
local lease = ''
if tonumber(ARGV[2]) > 0 and is_due and may_try and lease_until <= now then
  -- Greater than any token before it, even of a hash that was lost.
  lease = string.format('%.0f', math.max(fence + 1, now))
  redis.call('HSET', KEYS[1], 'fence', lease, 'lease_until', string.format('%.0f', now + tonumber(ARGV[2])))
  redis.call('PEXPIRE', KEYS[1], ARGV[6])
end
local generation = false
if token ~= '' and token ~= ARGV[4] and token ~= ARGV[5] then
  generation = redis.call('HGET', KEYS[1], 'generation')
end
return {now, lease, token, generation, failure}
