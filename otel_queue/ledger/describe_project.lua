-- Keeps the names of a project: the latest description wins, then the greater one, whatever the order.
--
-- KEYS[1] HASH  meta of the project; permanent
-- ARGV[1] time in Unix microseconds
-- ARGV[2] project name, ARGV[3] organisation id, ARGV[4] organisation name
-- Returns 1 if it changed something, else 0. A retry returns 0.

local held = redis.call('HMGET', KEYS[1], 'described_at', 'project_name', 'organisation_id', 'organisation_name')
local at, held_at = tonumber(ARGV[1]), tonumber(held[1] or 0)
if at < held_at then return 0 end
local told = ARGV[2] .. '\0' .. ARGV[3] .. '\0' .. ARGV[4]
local known = (held[2] or '') .. '\0' .. (held[3] or '') .. '\0' .. (held[4] or '')
if at == held_at and told <= known then return 0 end
redis.call('HSET', KEYS[1], 'described_at', ARGV[1], 'project_name', ARGV[2], 'organisation_id', ARGV[3],
  'organisation_name', ARGV[4])
redis.call('HINCRBY', KEYS[1], 'sequence', 1)
return told == known and 0 or 1
