-- Puts the counts of a day in the place of what is there, unless the day changed since it was looked at.
--
-- A day that is closed, expired or folded, is not put, whatever was seen of it before.
--
-- KEYS[1], ARGV[1] as in contract.lua
-- ARGV[2] day, YYYYMMDD, "undated" or "settled"
-- KEYS[2] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[3] HASH  counts of the day
-- KEYS[4] ZSET  deliveries in processing of the day
-- PREFIX .. open:N as in states.lua
-- ARGV[3] the score that KEYS[2] gave the day when it was looked at; "" if it was not there
-- ARGV[4], ARGV[5] how many pairs of a field and its count follow, and how many members of KEYS[4] after them. Then
--   come pairs of an id and the state with which it is known from now on as a delivery of a settled day that is not
--   final; "" for one that is not known any more
-- Returns 1, or 0 if the day changed meanwhile and nothing was replaced. A retry returns 0.

local marks = redis.call('HMGET', KEYS[1], 'expired', 'folded')
if (marks[1] and day <= marks[1]) or (marks[2] and day <= marks[2]) then return 0 end
if (redis.call('ZSCORE', KEYS[2], day) or '') ~= ARGV[3] then return 0 end
redis.call('DEL', KEYS[3], KEYS[4])
local pairs_end = 5 + 2 * tonumber(ARGV[4])
local members_end = pairs_end + tonumber(ARGV[5])
for index = 6, pairs_end, 2 do redis.call('HSET', KEYS[3], ARGV[index], ARGV[index + 1]) end
for index = pairs_end + 1, members_end do redis.call('ZADD', KEYS[4], 0, ARGV[index]) end
for index = members_end + 1, #ARGV, 2 do
  local id, state = ARGV[index], ARGV[index + 1]
  if state == '' then redis.call('HDEL', open_node(id), id) else redis.call('HSET', open_node(id), id, state) end
end
adopt()
local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
if pairs_end > 5 then
  redis.call('ZADD', KEYS[2], sequence, day)
else
  redis.call('ZREM', KEYS[2], day)
end
return 1
