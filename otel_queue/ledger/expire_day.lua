-- Takes a day of a project and all days before it out of the ledger, and closes them for late records.
--
-- KEYS[1], ARGV[1], ARGV[2] as in closing.lua; KEYS[3] to KEYS[6] end with the day, and those of days before end with theirs
-- KEYS[2] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[3] HASH  counts of the day
-- KEYS[4] ZSET  deliveries in processing of the day
-- KEYS[5] HASH  tracked deliveries of the day, with their further nodes KEYS[5]:N
-- KEYS[6] HASH  tracked events of the day, with their further nodes KEYS[6]:N
-- Returns how many days had counts; {0, 0, 0, 1} for a day that is not over, which is counted and nothing else. A retry
-- returns 0, or is counted again.

local NODE_ENTRIES, NODES = 128, 1 + 16 + 256 + 4096

local function forget(base)
  local has_more = redis.call('HLEN', base) >= NODE_ENTRIES
  redis.call('UNLINK', base)
  if not has_more then return end
  for first = 1, NODES - 1, 512 do
    local nodes = {}
    for node = first, math.min(first + 511, NODES - 1) do nodes[#nodes + 1] = base .. ':' .. node end
    redis.call('UNLINK', unpack(nodes))
  end
end

local function key_of(of, number) return KEYS[number]:sub(1, -1 - #day) .. of end

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
forget(KEYS[5])
forget(KEYS[6])
for _, listed in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  -- Other members (undated, settled, attempts) do not expire, and sort behind all days.
  if listed <= day then
    forget(key_of(listed, 5))
    forget(key_of(listed, 6))
    redis.call('UNLINK', key_of(listed, 3), key_of(listed, 4))
    redis.call('ZREM', KEYS[2], listed)
    had = had + 1
  end
end
close('expired')
if had > 0 then redis.call('HINCRBY', KEYS[1], 'sequence', 1) end
return had
