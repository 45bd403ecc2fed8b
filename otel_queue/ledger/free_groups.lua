-- Gives back groups that nothing is counted under, so that others have room.
--
-- KEYS[1], ARGV[1] as in contract.lua; of ARGV[2] nothing depends
-- KEYS[2] HASH  groups: labels -> number, and "#number" -> labels; permanent
-- ARGV[3] the project's sequence when all counts were looked at: a later one may have counted under any group
-- ARGV[4...] numbers of groups without counts
-- Returns how many were given back; 0 if the project changed meanwhile. A retry returns 0.

if redis.call('HGET', KEYS[1], 'sequence') ~= ARGV[3] then return 0 end
local freed = 0
for index = 4, #ARGV do
  local labels = redis.call('HGET', KEYS[2], '#' .. ARGV[index])
  if labels then freed = freed + redis.call('HDEL', KEYS[2], labels, '#' .. ARGV[index]) / 2 end
end
return freed
