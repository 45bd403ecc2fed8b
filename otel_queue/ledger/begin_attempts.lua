-- Counts attempts that were made before any attempt of the project was told by its id, once for all.
--
-- KEYS[1], ARGV[1], ARGV[2] as in contract.lua; the day is the first one whose attempts are not among them
-- KEYS[2] HASH  attempts ever: endpoint, NUL, status, NUL, http_status_code -> count; permanent
-- KEYS[3] ZSET  days with counts, by the sequence number of their last change; permanent
-- ARGV[3...] a field of KEYS[2] and its count, each
-- Returns 1, or 0 if the project has such attempts already and nothing was counted. A retry returns 0.

if redis.call('HEXISTS', KEYS[1], 'attempts_before') == 1 then return 0 end
adopt()
local most_groups = rule_of(day).most_groups
redis.call('HSET', KEYS[1], 'attempts_before', day)
local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
for index = 3, #ARGV, 2 do
  local field = ARGV[index]
  -- Beyond the cap on sets of labels as when attempts are recorded.
  if redis.call('HEXISTS', KEYS[2], field) == 0 and redis.call('HLEN', KEYS[2]) >= most_groups then
    field = 'other' .. field:match('%z.*$')
  end
  redis.call('HINCRBY', KEYS[2], field, ARGV[index + 1])
end
if #ARGV > 2 then redis.call('ZADD', KEYS[3], sequence, 'attempts') end
return 1
