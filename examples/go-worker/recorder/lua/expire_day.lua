-- Takes a day of a project and all days before it out of the ledger, and closes them for late records.
--
-- KEYS[1], ARGV[1], ARGV[2] as in closing.lua
-- KEYS[2] ZSET  days with counts, by the sequence number of their last change; permanent
-- PREFIX .. counts:, processing:, deliveries:, events: and DAY go with each day
-- Returns how many days had counts; {0, 0, 0, 1} for a day that is not over, which is counted and nothing else. A retry
-- returns 0, or is counted again.

if not is_over then
  -- No error: whoever sent the record would send it again until the day is over.
  adopt()
  redis.call('HSETNX', KEYS[1], 'sequence', 0)
  redis.call('HINCRBY', KEYS[1], 'clamped:day', 1)
  return {0, 0, 0, 1}
end

-- A full Redis refuses a script whose first write needs memory, so what frees some comes first: the last day goes, with
-- counts or without.
local had = 0
forget(PREFIX .. 'deliveries:' .. day)
forget(PREFIX .. 'events:' .. day)
for _, listed in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  -- Other members (settled, attempts) do not expire, and sort behind all days.
  if listed <= day then
    forget(PREFIX .. 'deliveries:' .. listed)
    forget(PREFIX .. 'events:' .. listed)
    redis.call('UNLINK', PREFIX .. 'counts:' .. listed, PREFIX .. 'processing:' .. listed)
    redis.call('ZREM', KEYS[2], listed)
    had = had + 1
  end
end
local settled, settling = unpack(redis.call('HMGET', KEYS[1], 'settled', 'settling'))
if settled or settling then
  for number = 0, OPEN_NODES - 1 do
    local node = PREFIX .. 'open:' .. number
    for _, id in ipairs(redis.call('HKEYS', node)) do
      if day_of_ulid(id) <= day then redis.call('HDEL', node, id) end
    end
  end
end
local undated = PREFIX .. 'undated'
for _, member in ipairs(redis.call('ZRANGEBYSCORE', undated, OPEN_FROM, OPEN_FROM + number_of_day(day))) do
  local _, node, id = undated_place(member)
  redis.call('HDEL', node, id)
  redis.call('ZREM', undated, member)
end
close('expired')
if had > 0 then redis.call('HINCRBY', KEYS[1], 'sequence', 1) end
return had
