-- Keeps the names of a project: the latest description wins, then the greater one, whatever the order.
--
-- KEYS[1] HASH  meta of the project; permanent
-- ARGV[1] time in Unix microseconds
-- ARGV[2] project name, ARGV[3] organisation id, ARGV[4] organisation name
-- ARGV[5] microseconds by which a record may be ahead of Redis; a time beyond is set to that limit
-- Returns 1 if it changed something, else 0; {0, 0, 0, 1} if its time was set back. A retry returns 0, or is set back
-- again.

local time = redis.call('TIME')
local latest = time[1] * 1000000 + time[2] + tonumber(ARGV[5])
local held = redis.call('HMGET', KEYS[1], 'described_at', 'project_name', 'organisation_id', 'organisation_name')
local at, held_at = math.min(tonumber(ARGV[1]), latest), tonumber(held[1] or 0)
-- Kept before times were set back, or before Redis's own clock was: any description is later.
if held_at > latest then held_at = 0 end
local told = ARGV[2] .. '\0' .. ARGV[3] .. '\0' .. ARGV[4]
local known = (held[2] or '') .. '\0' .. (held[3] or '') .. '\0' .. (held[4] or '')
local changed = 0
if at > held_at or (at == held_at and told > known) then
  redis.call('HSET', KEYS[1], 'described_at', string.format('%.0f', at), 'project_name', ARGV[2], 'organisation_id',
    ARGV[3], 'organisation_name', ARGV[4])
  redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  changed = told == known and 0 or 1
end
if tonumber(ARGV[1]) <= latest then return changed end
redis.call('HINCRBY', KEYS[1], 'clamped:project', 1)
return {0, 0, 0, 1}
