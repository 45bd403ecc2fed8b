-- Notes that a refresh failed, so that nobody tries again at once, and ends its lease.
--
-- KEYS[1] HASH  as in take_lease.lua
-- ARGV[1] token of the lease
-- ARGV[2] reason, a colon, a space, and what happened
-- Returns 1, or 0 if the lease is lost and nothing was noted. A retry notes it again.

if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'failed_at', string.format('%.0f', now[1] * 1000000 + now[2]), 'failure', ARGV[2])
redis.call('HDEL', KEYS[1], 'lease_until')
return 1
