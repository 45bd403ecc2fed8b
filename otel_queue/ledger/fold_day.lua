-- Adds the counts of a settled day to those of all days that were folded before it, under `settled`.
--
-- So a project where nothing expires has a bounded number of days. What was folded does not expire any more. Deliveries
-- that are not final stay known, and move the folded counts from then on.
--
-- KEYS[1], ARGV[1], ARGV[2] as in closing.lua
-- KEYS[2] ZSET  days with counts, by the sequence number of their last change; permanent
-- PREFIX .. counts:DAY, processing:DAY become part of counts:settled, processing:settled; permanent
-- Returns 1 if the day had counts, else 0; an error for a day that is not settled. A retry returns 0.

local settled = redis.call('HGET', KEYS[1], 'settled')
if not settled or day > settled then return redis.error_reply('ERR ' .. day .. ' is not settled') end

close('folded')
if redis.call('ZREM', KEYS[2], day) == 0 then return 0 end
local counts = redis.call('HGETALL', PREFIX .. 'counts:' .. day)
for index = 1, #counts, 2 do redis.call('HINCRBY', PREFIX .. 'counts:settled', counts[index], counts[index + 1]) end
for _, member in ipairs(redis.call('ZRANGE', PREFIX .. 'processing:' .. day, 0, -1)) do
  redis.call('ZADD', PREFIX .. 'processing:settled', 0, member)
end
redis.call('UNLINK', PREFIX .. 'counts:' .. day, PREFIX .. 'processing:' .. day)
redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[1], 'sequence', 1), 'settled')
return 1
