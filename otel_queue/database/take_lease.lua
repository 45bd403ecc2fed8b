-- Gives out the right to follow, to one at a time, or prolongs it.
--
-- KEYS[1] HASH  fence: token of the latest lease; lease_until (Redis microseconds); place: how far the follower is; permanent
-- ARGV[1] token of the lease that the caller has; "" for none
-- ARGV[2] its duration from now, in microseconds
-- Returns {token, place}: the token is "" while another has the lease; the place is nil before the first one was kept.
-- A retry may find the lease taken by the first try; it then ends by itself.

local now = redis.call('TIME')
now = now[1] * 1000000 + now[2]
local held = redis.call('HMGET', KEYS[1], 'fence', 'lease_until', 'place')
local fence, lease_until = tonumber(held[1] or 0) or 0, tonumber(held[2] or 0) or 0
local token = ARGV[1]
if token == '' or token ~= held[1] then
  if lease_until > now then return {'', held[3]} end
  -- Greater than any token before it, even of a hash that was lost.
  token = string.format('%.0f', math.max(fence + 1, now))
end
redis.call('HSET', KEYS[1], 'fence', token, 'lease_until', string.format('%.0f', now + tonumber(ARGV[2])))
return {token, held[3]}
