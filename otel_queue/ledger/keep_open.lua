-- Copies the deliveries of a day that are not final to where they stay known when the day is settled.
--
-- The first step of settling a day: called for all its nodes, some at a time, since a large day would hold everybody up.
-- From the first call on records of the day keep the copies as they are themselves, so that none is older.
--
-- KEYS[1], ARGV[1], ARGV[2] as in contract.lua
-- KEYS[2] HASH  tracked deliveries of the day; once full, more in KEYS[2]:N
-- ARGV[3], ARGV[4] numbers of the first and the last node to look at; 0 is KEYS[2]
-- Returns 1 if one of them was full, so that there may be more behind it; 0 if not, or if the day is settled already. An
--   error for a day that is still tracked. A retry copies the same.

if tonumber(time[1]) <= tracked_until_of(day) then
  return redis.error_reply('ERR ' .. day .. ' is still tracked')
end
local settled = redis.call('HGET', KEYS[1], 'settled')
if settled and day <= settled then return 0 end
redis.call('HSET', KEYS[1], 'settling', day)

local is_full = 0
for number = tonumber(ARGV[3]), tonumber(ARGV[4]) do
  local node = number == 0 and KEYS[2] or KEYS[2] .. ':' .. number
  local held = redis.call('HGETALL', node)
  if #held >= 2 * NODE_ENTRIES then is_full = 1 end
  for index = 1, #held, 2 do
    local id, state = held[index], held[index + 1]
    if state ~= '' and state:byte(1) % 8 < DISCARDED then
      redis.call('HSET', open_node(id), id, state)
    end
  end
end
return is_full
