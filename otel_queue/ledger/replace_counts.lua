-- Puts the counts of a day in the place of what is there, unless the day changed since it was looked at.
--
-- A day that is closed, expired or folded, is not put, whatever was seen of it before.
--
-- KEYS[1] HASH  meta of the project; permanent
-- KEYS[2] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[3] HASH  counts of the day
-- KEYS[4] ZSET  deliveries in processing of the day
-- ARGV[1] day, YYYYMMDD, "undated" or "settled"
-- ARGV[2] the score that KEYS[2] gave the day when it was looked at; "" if it was not there
-- ARGV[3] how many pairs of a field and its count follow; after them come the members of KEYS[4]
-- Returns 1, or 0 if the day changed meanwhile and nothing was replaced. A retry returns 0.

local marks = redis.call('HMGET', KEYS[1], 'expired', 'folded')
if (marks[1] and ARGV[1] <= marks[1]) or (marks[2] and ARGV[1] <= marks[2]) then return 0 end
if (redis.call('ZSCORE', KEYS[2], ARGV[1]) or '') ~= ARGV[2] then return 0 end
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
