-- Puts a generation in the place of the last one, and ends the lease it was made under.
--
-- Refused to all but the latest lease: who was slow cannot overwrite what a later one wrote, or is about to.
--
-- KEYS[1] HASH  as in take_lease.lua, which gave it its TTL
-- ARGV[1] token of the lease
-- ARGV[2] when the generation was read, in Redis microseconds
-- ARGV[3] the generation
-- Returns 1, or 0 if the lease is lost and nothing was kept. A retry writes the same again.

if redis.call('HGET', KEYS[1], 'fence') ~= ARGV[1] then return 0 end
redis.call('HSET', KEYS[1], 'token', ARGV[1], 'time', ARGV[2], 'generation', ARGV[3])
redis.call('HDEL', KEYS[1], 'lease_until', 'failed_at', 'failure')
return 1
