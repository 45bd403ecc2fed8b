-- Settles a day that is no longer tracked: its counts stay, its ids go, but for deliveries that are not final.
--
-- Those were copied before (keep_open.lua), and their later records still move the day's counts. What else comes for the
-- day is late. All days before it are settled with it.
--
-- KEYS[1], ARGV[1], ARGV[2] as in contract.lua
-- KEYS[2] HASH  tracked deliveries of the day, with their further nodes KEYS[2]:N
-- KEYS[3] HASH  tracked events of the day, with their further nodes KEYS[3]:N
-- Returns 1; 0 if the day was not copied, or is settled already. A retry returns 0.

if redis.call('HGET', KEYS[1], 'settling') ~= day then return 0 end
forget(KEYS[2])
forget(KEYS[3])
adopt()
redis.call('HSET', KEYS[1], 'settled', day)
redis.call('HDEL', KEYS[1], 'settling')
return 1
