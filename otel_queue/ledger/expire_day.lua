-- Takes a day of a project and all days before it out of the ledger, and closes them for late records.
--
-- KEYS[1] HASH  meta of the project; permanent
-- KEYS[2] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[3] HASH  counts of the day
-- KEYS[4] ZSET  deliveries in processing of the day
-- KEYS[5] HASH  tracked deliveries of the day, with their further nodes KEYS[5]:N
-- KEYS[6] HASH  tracked events of the day, with their further nodes KEYS[6]:N
-- ARGV[1] day, YYYYMMDD; KEYS[3] to KEYS[6] end with it, and those of days before end with theirs
-- Returns how many days had counts. A retry returns 0.

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

local function key_of(day, number) return KEYS[number]:sub(1, -1 - #ARGV[1]) .. day end

-- Any other text would sort somewhere among the days, and close those before it for good.
if not ARGV[1]:match('^%d%d%d%d%d%d%d%d$') then
  return redis.error_reply('ERR the day must be YYYYMMDD, not ' .. ARGV[1])
end

local expired = redis.call('HGET', KEYS[1], 'expired')
if not expired or expired < ARGV[1] then redis.call('HSET', KEYS[1], 'expired', ARGV[1]) end
redis.call('HSETNX', KEYS[1], 'sequence', 0)
local had = 0
for _, day in ipairs(redis.call('ZRANGE', KEYS[2], 0, -1)) do
  -- Other members (undated, settled, attempts) do not expire, and sort behind all days.
  if day <= ARGV[1] then
    forget(key_of(day, 5))
    forget(key_of(day, 6))
    redis.call('UNLINK', key_of(day, 3), key_of(day, 4))
    redis.call('ZREM', KEYS[2], day)
    had = had + 1
  end
end
if had > 0 then redis.call('HINCRBY', KEYS[1], 'sequence', 1) end
return had
