-- Prolongs a lease, if no later one was given out.
--
-- KEYS[1] HASH  as in take_lease.lua
-- ARGV[1] token of the lease
-- ARGV[2] its duration from now, in microseconds
-- Returns 1, or 0 if the lease is lost. A retry prolongs it again.

if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
local now = redis.call('TIME')
redis.call('HSET', KEYS[1], 'lease_until', string.format('%.0f', now[1] * 1000000 + now[2] + tonumber(ARGV[2])))
return 1
