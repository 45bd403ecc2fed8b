-- What the scripts that record share; put before each of them. It expects
--
-- KEYS[1] HASH  meta of the project; permanent
-- KEYS[2] HASH  groups: labels -> number, and "#number" -> labels; permanent
-- ARGV[1] day, YYYYMMDD or "undated"
-- ARGV[2] Unix second until which the day's ids are tracked, after which records are late; 0 for no end
-- ARGV[3] microseconds by which a record may be ahead of Redis
-- ARGV[4] most groups a project may have; beyond it things count under group 0
--
-- and never scans: an id is looked for in at most four hashes that its own hash names.

-- A day's ids fill one hash, then 16, then 256, then 4096: few large hashes for a small project and many small ones
-- for a large one, all of them short enough for Redis to keep them packed.
local NODE_ENTRIES, FANOUTS = 128, {1, 16, 256, 4096}

local day, tracked_until = ARGV[1], tonumber(ARGV[2])
local time = redis.call('TIME')
local latest = time[1] * 1000000 + time[2] + tonumber(ARGV[3])
local changed, unchanged, clamped = 0, 0, 0

-- Whether the day is closed: expired, folded, or no longer tracked.
local function is_late()
  local marks = redis.call('HMGET', KEYS[1], 'expired', 'folded')
  return (tracked_until > 0 and tonumber(time[1]) > tracked_until)
    or (marks[1] and day <= marks[1]) or (marks[2] and day <= marks[2])
end

local function clamp(at)
  -- Before 1970 nothing happened: a register that was never set has the time 0, and any record is later or the same.
  if at <= latest then return math.max(at, 0) end
  clamped = clamped + 1
  return latest
end

local lengths, grown = {}, {}
local function is_full(node)
  lengths[node] = lengths[node] or redis.call('HLEN', node)
  return lengths[node] >= NODE_ENTRIES
end

-- Where the id is held, and its state, which is empty if it was forgotten; or where it is to be put, and false.
local function locate(base, id, hash)
  local node, first = base, 0
  for level = 1, #FANOUTS do
    if level > 1 then node = base .. ':' .. first + hash % FANOUTS[level] end
    local state = redis.call('HGET', node, id)
    if state or level == #FANOUTS or not is_full(node) then return node, state end
    first = first + FANOUTS[level]
  end
end

local function keep(node, id, state, is_new)
  redis.call('HSET', node, id, state)
  if is_new then
    grown[node] = true
    if lengths[node] then lengths[node] = lengths[node] + 1 end
  end
end

local numbers = {}
local function number_of(labels)
  if not numbers[labels] then
    local number = redis.call('HGET', KEYS[2], labels)
    if not number then
      -- Groups are never removed, so their number is the next one's; a counter apart could be lost on its own.
      number = redis.call('HLEN', KEYS[2]) / 2 + 1
      if number > tonumber(ARGV[4]) then return 0 end
      redis.call('HSET', KEYS[2], labels, number, '#' .. number, labels)
    end
    numbers[labels] = tonumber(number)
  end
  return numbers[labels]
end

-- Takes one from a field of the day's counts; a field that reaches 0 goes.
local function take(counts, field)
  if redis.call('HINCRBY', counts, field, -1) == 0 then redis.call('HDEL', counts, field) end
end

local function move(counts, from, to)
  if from == to then return end
  if from then take(counts, from) end
  redis.call('HINCRBY', counts, to, 1)
end

-- Ends a script that recorded something of `kind`, which is counted under `member` of the days.
local function conclude(kind, days, member)
  -- All nodes of a day end at the same moment: were the first one gone before the others, ids would look new.
  if tracked_until > 0 then
    for node in pairs(grown) do redis.call('EXPIREAT', node, tracked_until + 86400) end
  end
  if changed > 0 then
    redis.call('ZADD', days, redis.call('HINCRBY', KEYS[1], 'sequence', 1), member)
  end
  if unchanged > 0 then redis.call('HINCRBY', KEYS[1], 'duplicate:' .. kind, unchanged) end
  if clamped > 0 then redis.call('HINCRBY', KEYS[1], 'clamped:' .. kind, clamped) end
  return {changed, unchanged, 0, clamped}
end

local function refuse(kind, records)
  -- A project that has only late records is there all the same: without a sequence its readers would call it lost.
  redis.call('HSETNX', KEYS[1], 'sequence', 0)
  redis.call('HINCRBY', KEYS[1], 'late:' .. kind, records)
  return {0, 0, records, 0}
end

