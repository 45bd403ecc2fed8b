-- What the scripts that record share; put before each of them. It expects
--
-- KEYS[1], ARGV[1], ARGV[2] as in contract.lua, which is put before it with states.lua; the day may be "undated"
-- KEYS[2] HASH  groups: labels -> number, and "#number" -> labels; permanent
--
-- and never scans: an id is looked for in at most four hashes that its own hash names.

local is_undated = day == 'undated'
local rule, latest = rule_of(day), now + max_skew
-- The Unix second until which ids of the day are taken that are not known; 0 for no end. Attempts have another.
local tracked_until = is_undated and 0 or tracked_until_of(day)
local changed, unchanged, late, clamped = 0, 0, 0, 0

local expired, settled, settling, folded =
  unpack(redis.call('HMGET', KEYS[1], 'expired', 'settled', 'settling', 'folded'))
local function is_expired(of) return expired and of <= expired end
local function is_settled(of) return settled and of <= settled end
local function is_past() return tracked_until > 0 and tonumber(time[1]) > tracked_until end

-- Under what a day's ids count: the day, or `settled` once it is folded.
local function counted_as(of) return folded and of <= folded and 'settled' or of end

-- The time that a record counts with, and whether it was set back: one too far ahead of Redis becomes Redis's now.
local function clamp(at)
  -- Before 1970 nothing happened: a register that was never set has the time 0, and any record is later or the same.
  if at <= latest then return math.max(at, 0), false end
  clamped = clamped + 1
  return now, true
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

-- Where an id of the call's day is held, its state and the day it counts under; or where it is to be put, and false.
-- Of a settled day only what is not final is still known, so a new id has no place there.
local function find(base, id, hash)
  if is_undated then
    local node = base .. ':' .. hash % UNDATED_NODES
    local state = redis.call('HGET', node, id)
    if state then return node, state:sub(3), undated_day(state) end
    return node, false, today()
  end
  if is_settled(day) then
    local node = open_node(id)
    return node, redis.call('HGET', node, id), day
  end
  local node, state = locate(base, id, hash)
  return node, state, day
end

-- Lists an undated id of a kind, each time that it is told: an index that was lost grows again. What still stands of a
-- settled day has been ended.
local function list_undated(letter, node, id, of)
  if is_undated and not is_settled(of) then
    redis.call('ZADD', PREFIX .. 'undated', number_of_day(of), undated_member(letter, node, id))
  end
end

-- Keeps the state of an id that counts under the day `of`.
local function keep(node, id, state, of, is_new)
  if is_undated then
    redis.call('HSET', node, id, struct.pack('>I2', number_of_day(of)) .. state)
    -- So that whoever looks for all of them looks where there are some.
    if is_new then redis.call('HSET', KEYS[1], 'undated', 1) end
    return
  end
  redis.call('HSET', node, id, state)
  if is_new then
    grown[node] = true
    if lengths[node] then lengths[node] = lengths[node] + 1 end
  end
end

-- A delivery of a settled day that has become final is not known any more.
local function keep_open(node, id, state, of, status)
  if is_settled(of) and status >= DISCARDED then
    redis.call('HDEL', node, id)
  elseif of == settling and not is_undated then
    -- The day is being settled: what was copied already is to be as it is here.
    if status >= DISCARDED then redis.call('HDEL', open_node(id), id) else redis.call('HSET', open_node(id), id, state) end
  end
end

-- The next number that labels in `kept` are to have. None is given twice, so that readers may remember what it stands
-- for; a count that was lost catches up.
local function new_number(kept)
  local number
  repeat number = redis.call('HINCRBY', KEYS[1], 'groups', 1) until redis.call('HEXISTS', kept, '#' .. number) == 0
  return number
end

local numbers = {}
local function number_of(labels)
  if not numbers[labels] then
    local number = redis.call('HGET', KEYS[2], labels)
    if not number then
      if redis.call('HLEN', KEYS[2]) / 2 >= rule.most_groups then return 0 end
      number = new_number(KEYS[2])
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

local touched = {}

-- Ends a script that recorded something of `kind`; what it touched are members of the days. Ids are kept for so many
-- days longer than new ones are taken.
local function conclude(kind, days, grace_days)
  adopt()
  -- All nodes of a day end at the same moment: were the first one gone before the others, ids would look new.
  if tracked_until > 0 then
    for node in pairs(grown) do redis.call('EXPIREAT', node, tracked_until + grace_days * 86400) end
  end
  if changed > 0 then
    local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
    for member in pairs(touched) do redis.call('ZADD', days, sequence, member) end
  elseif late > 0 then
    -- A project that has only late records is there all the same: without a sequence its readers would call it lost.
    redis.call('HSETNX', KEYS[1], 'sequence', 0)
  end
  if unchanged > 0 then redis.call('HINCRBY', KEYS[1], 'duplicate:' .. kind, unchanged) end
  if late > 0 then redis.call('HINCRBY', KEYS[1], 'late:' .. kind, late) end
  if clamped > 0 then redis.call('HINCRBY', KEYS[1], 'clamped:' .. kind, clamped) end
  return {changed, unchanged, late, clamped}
end
