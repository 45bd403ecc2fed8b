-- Keeps how far the follower is, and prolongs its lease; refused to all but the latest lease.
--
-- KEYS[1] HASH  as in take_lease.lua
-- ARGV[1] token of the lease
-- ARGV[2] duration of the lease from now, in microseconds; 0 ends it
-- ARGV[3] the place; "" leaves the one that is kept
-- Returns 1, or 0 if the lease is lost and nothing was kept. A retry keeps the same.

if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
local now = redis.call('TIME')
local lease_until = tonumber(ARGV[2]) > 0 and now[1] * 1000000 + now[2] + tonumber(ARGV[2]) or 0
redis.call('HSET', KEYS[1], 'lease_until', string.format('%.0f', lease_until))
if ARGV[3] ~= '' then redis.call('HSET', KEYS[1], 'place', ARGV[3]) end
return 1
