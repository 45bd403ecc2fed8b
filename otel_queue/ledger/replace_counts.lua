-- Puts the counts of a day in the place of what is there, unless the day changed since it was looked at.
--
-- KEYS[1] HASH  meta of the project; permanent
-- KEYS[2] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[3] HASH  counts of the day
-- KEYS[4] ZSET  deliveries in processing of the day
-- ARGV[1] day, YYYYMMDD or "undated"
-- ARGV[2] the score that KEYS[2] gave the day when it was looked at
-- ARGV[3] how many pairs of a field and its count follow; after them come the members of KEYS[4]
-- Returns 1, or 0 if the day changed meanwhile and nothing was replaced. A retry returns 0.

if redis.call('ZSCORE', KEYS[2], ARGV[1]) ~= ARGV[2] then return 0 end
redis.call('DEL', KEYS[3], KEYS[4])
local pairs_end = 3 + 2 * tonumber(ARGV[3])
for index = 4, pairs_end, 2 do redis.call('HSET', KEYS[3], ARGV[index], ARGV[index + 1]) end
for index = pairs_end + 1, #ARGV do redis.call('ZADD', KEYS[4], 0, ARGV[index]) end
local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
if pairs_end > 3 then
  redis.call('ZADD', KEYS[2], sequence, ARGV[1])
else
  redis.call('ZREM', KEYS[2], ARGV[1])
end
return 1
