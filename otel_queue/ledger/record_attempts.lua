-- Counts delivery attempts of one project whose ids are of one day, each id once.
--
-- The counter outlives days and never goes down.
--
-- KEYS[1], KEYS[2], ARGV[1], ARGV[2] as in prelude.lua
-- KEYS[3] HASH  attempts ever: endpoint, NUL, status, NUL, http_status_code -> count; permanent
-- KEYS[4] ZSET  days with counts, by the sequence number of their last change; "attempts" is one of them; permanent
-- KEYS[5] HASH  attempt ids of the day; once full, more in KEYS[5]:N; TTL to the end of tracking and a day
-- ARGV[3...] three values per record: id, hash of the id, field of KEYS[3]
-- Returns {changed, unchanged, late, clamped}. A retry counts as unchanged.

local records = (#ARGV - 2) / 3
if tracked_until > 0 then tracked_until = end_of(day) + rule.attempt_days * 86400 end
if tracked_until > 0 and tonumber(time[1]) > tracked_until then return refuse('attempt', records) end

for record = 1, records do
  local from = 3 + (record - 1) * 3
  local id = ARGV[from]
  local node, state = locate(KEYS[5], id, tonumber(ARGV[from + 1]))
  if state then
    unchanged = unchanged + 1
  else
    changed = changed + 1
    keep(node, id, '', true)
    redis.call('HINCRBY', KEYS[3], ARGV[from + 2], 1)
  end
end
return conclude('attempt', KEYS[4], 'attempts')
