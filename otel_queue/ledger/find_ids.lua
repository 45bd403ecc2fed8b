-- Looks up ids of one project and one day; writes nothing.
--
-- KEYS[1], KEYS[2], ARGV[1], ARGV[2] as in prelude.lua
-- KEYS[3] HASH  tracked deliveries, events or attempt ids of the day; once full, more in KEYS[3]:N
-- ARGV[3...] two values per id: id, hash of the id
-- Returns whether the day is closed for records (1 or 0), then for each id its state: nil if it is not there, empty if
--   it was forgotten. A retry looks again.

local is_closed = is_expired(day) or is_settled(day) or is_past()
local found = {not is_undated and is_closed and 1 or 0}
for index = 3, #ARGV, 2 do
  local node, state = find(KEYS[3], ARGV[index], tonumber(ARGV[index + 1]))
  -- The state of an undated id begins with its day, which is part of what was seen.
  found[#found + 1] = is_undated and redis.call('HGET', node, ARGV[index]) or state
end
return found
