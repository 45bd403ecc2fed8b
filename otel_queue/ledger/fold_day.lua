-- Adds the counts of a day that is no longer tracked to the settled ones, and closes it and all before it.
--
-- For projects where nothing expires. Later records for the day are late: its deliveries are no longer known one by
-- one, so the settled counts stay as they were until they are reconciled.
--
-- KEYS[1], ARGV[1], ARGV[2] as in closing.lua
-- KEYS[2] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[3] HASH  counts of the day
-- KEYS[4] ZSET  deliveries in processing of the day
-- KEYS[5] HASH  settled counts; permanent
-- KEYS[6] ZSET  deliveries in processing of settled days; permanent
-- Returns 1 if the day had counts, else 0; an error for a day that is not over. A retry returns 0.

if not is_over then return redis.error_reply('ERR ' .. day .. ' is not over; only days before today can be folded') end

close('folded')
if redis.call('ZREM', KEYS[2], day) == 0 then return 0 end
local counts = redis.call('HGETALL', KEYS[3])
for index = 1, #counts, 2 do redis.call('HINCRBY', KEYS[5], counts[index], counts[index + 1]) end
for _, member in ipairs(redis.call('ZRANGE', KEYS[4], 0, -1)) do redis.call('ZADD', KEYS[6], 0, member) end
redis.call('UNLINK', KEYS[3], KEYS[4])
redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[1], 'sequence', 1), 'settled')
return 1
