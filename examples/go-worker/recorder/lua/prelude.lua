-- What the scripts that record share; put before each of them. It expects
--
-- KEYS[1], ARGV[1], ARGV[2] as in contract.lua, which is put before it; the day may be "undated"
-- KEYS[2] HASH  groups: labels -> number, and "#number" -> labels; permanent
--
-- and never scans: an id is looked for in at most four hashes that its own hash names.

-- A day's ids fill one hash, then 16, then 256, then 4096: few large hashes for a small project and many small ones
-- for a large one, all of them short enough for Redis to keep them packed.
local NODE_ENTRIES, FANOUTS = 128, {1, 16, 256, 4096}

local rule, latest = rule_of(day), now + max_skew
-- The Unix second until which the day's ids are tracked, after which records are late; 0 for no end. Attempts have
-- another.
local tracked_until = day == 'undated' and 0 or end_of(day) + rule.track_days * 86400
local changed, unchanged, clamped = 0, 0, 0

-- Whether the day is closed: expired, folded, or no longer tracked.
local function is_late()
  local marks = redis.call('HMGET', KEYS[1], 'expired', 'folded')
  return (tracked_until > 0 and tonumber(time[1]) > tracked_until)
    or (marks[1] and day <= marks[1]) or (marks[2] and day <= marks[2])
end

-- The time that a record counts with, and whether it was set back: one too far ahead of Redis becomes Redis's now.
local function clamp(at)
  -- Before 1970 nothing happened: a register that was never set has the time 0, and any record is later or the same.
  if at <= latest then return math.max(at, 0), false end
  clamped = clamped + 1
  return now, true
end

-- States keep times as offsets from the time that the id tells (0 for undated ids), in as few bytes as they need.
local function origin_of(id)
  return day == 'undated' and 0 or struct.unpack('>I6', id) * 1000
end

-- How many bytes a signed number takes.
local function width_of(number)
  if number < 0 then number = -number - 1 end
  local width, limit = 1, 128
  while number >= limit do width, limit = width + 1, limit * 256 end
  return width
end

-- How many bytes a group's number takes.
local function digits_of(number)
  return number < 0x100 and 1 or number < 0x10000 and 2 or number < 0x1000000 and 3 or 4
end

-- An event is the widths of what follows (bits 0 to 2: bytes of the time less one; 3 and 4: those of the group less
-- one), the offset of its time, and its group.
local function decode_event(state, origin)
  local widths = state:byte(1)
  local at, number = struct.unpack('>i' .. widths % 8 + 1 .. 'I' .. math.floor(widths / 8) + 1, state, 2)
  return number, at + origin
end

local function encode_event(number, at, origin)
  local offset = at - origin
  local width, digits = width_of(offset), digits_of(number)
  return struct.pack('>Bi' .. width .. 'I' .. digits, width - 1 + 8 * (digits - 1), offset, number)
end

-- Head of a delivery's state: its layout for each value of the second byte.
local layouts = {}
local function layout_of(widths)
  if not layouts[widths] then
    local far, near = widths % 8 + 1, math.floor(widths / 8) % 8 + 1
    layouts[widths] = ('>i%di%di%dI%d'):format(far, far, near, math.floor(widths / 64) + 1)
  end
  return layouts[widths]
end

-- The head of a delivery's state, which every one begins with: what it is, and where what follows the head begins.
--
-- First byte: status (bits 0 to 2), kind of the creation time (3 and 4), whether the labels come from a created
-- record (5), whether the status was set and not created (6), whether more follows the head (7). Second byte: bytes
-- of the next two offsets less one (bits 0 to 2), of the third less one (3 to 5), of the group less one (6 and 7).
-- Then the offsets of the status's, the labels' and the creation time, and the group.
local function decode_head(state, origin)
  local first, widths = state:byte(1, 2)
  local status_at, labels_at, created, number, position = struct.unpack(layout_of(widths), state, 3)
  return {
    status = first % 8, created_kind = math.floor(first / 8) % 4, labels_kind = math.floor(first / 32) % 2,
    is_set = math.floor(first / 64) % 2 == 1, has_more = first >= 128,
    status_at = status_at + origin, labels_at = labels_at + origin, created = created + origin, number = number,
  }, position
end

local function encode_head(held, origin)
  local status_at, labels_at, created = held.status_at - origin, held.labels_at - origin, held.created - origin
  local far, near = math.max(width_of(status_at), width_of(labels_at)), width_of(created)
  local widths = far - 1 + 8 * (near - 1) + 64 * (digits_of(held.number) - 1)
  local first = held.status + 8 * held.created_kind + 32 * held.labels_kind + (held.is_set and 64 or 0)
    + (held.has_more and 128 or 0)
  return string.char(first, widths) .. struct.pack(layout_of(widths), status_at, labels_at, created, held.number)
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
      if number > rule.most_groups then return 0 end
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
  adopt()
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
  adopt()
  -- A project that has only late records is there all the same: without a sequence its readers would call it lost.
  redis.call('HSETNX', KEYS[1], 'sequence', 0)
  redis.call('HINCRBY', KEYS[1], 'late:' .. kind, records)
  return {0, 0, records, 0}
end

