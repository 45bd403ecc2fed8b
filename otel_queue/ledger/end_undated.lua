-- Ends undated ids whose days are settled: they are not known any more, but for deliveries that are not final.
--
-- KEYS[1], ARGV[1], ARGV[2] as in contract.lua
-- ARGV[3] how many ids at the most
-- Returns how many were looked at; fewer than ARGV[3] when there are no more. A retry goes on. An error for a day that is
--   still tracked.

if tonumber(time[1]) <= tracked_until_of(day) then
  return redis.error_reply('ERR ' .. day .. ' is still tracked')
end
local expired = redis.call('HGET', KEYS[1], 'expired') or ''
local members = redis.call('ZRANGEBYSCORE', PREFIX .. 'undated', '-inf', number_of_day(day), 'LIMIT', 0, ARGV[3])
for _, member in ipairs(members) do
  local letter, node, id = undated_place(member)
  local state = letter == 'd' and redis.call('HGET', node, id)
  if not state or undated_day(state) <= expired or state:byte(3) % 8 >= DISCARDED then
    redis.call('HDEL', node, id)
    redis.call('ZREM', PREFIX .. 'undated', member)
  else
    redis.call('ZADD', PREFIX .. 'undated', OPEN_FROM + number_of_day(undated_day(state)), member)
  end
end
return #members
