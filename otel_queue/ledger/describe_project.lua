-- Keeps the names of a project: the latest description wins, then the greater one, whatever the order.
--
-- KEYS[1], ARGV[1] as in contract.lua; of ARGV[2] nothing depends
-- ARGV[3] time in Unix microseconds; one that is too far ahead of Redis is set to that limit
-- ARGV[4] project name, ARGV[5] organisation id, ARGV[6] organisation name
-- Returns 1 if it changed something, else 0; {0, 0, 0, 1} if its time was set back. A retry returns 0, or is set back
-- again.

local latest = now + max_skew
local kept = redis.call('HMGET', KEYS[1], 'described_at', 'project_name', 'organisation_id', 'organisation_name')
local at, held_at = math.min(tonumber(ARGV[3]), latest), tonumber(kept[1] or 0)
-- Kept before times were set back, or before Redis's own clock was: any description is later.
if held_at > latest then held_at = 0 end
local said = ARGV[4] .. '\0' .. ARGV[5] .. '\0' .. ARGV[6]
local known = (kept[2] or '') .. '\0' .. (kept[3] or '') .. '\0' .. (kept[4] or '')
local changed = 0
adopt()
if at > held_at or (at == held_at and said > known) then
  redis.call('HSET', KEYS[1], 'described_at', string.format('%.0f', at), 'project_name', ARGV[4], 'organisation_id',
    ARGV[5], 'organisation_name', ARGV[6])
  redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  changed = said == known and 0 or 1
end
if tonumber(ARGV[3]) <= latest then return changed end
redis.call('HINCRBY', KEYS[1], 'clamped:project', 1)
return {0, 0, 0, 1}
