-- Merges records of deliveries of one project and one day into the ledger.
--
-- A delivery holds a status register (the latest time wins, then the higher rank) and labels with a creation time,
-- merged apart: what a created record says beats the rest, then the earliest record, then the smaller value. Any
-- order and any repetition of the same records ends in the same state. Counts move with the delivery; nothing is
-- subtracted for a delivery that is not held.
--
-- KEYS[1], KEYS[2], ARGV[1] to ARGV[4] as in prelude.lua; a group is endpoint, event type and source
-- KEYS[3] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[4] HASH  counts of the day, "number:status" -> deliveries; until the day expires or is folded
-- KEYS[5] ZSET  deliveries in processing: number (4 bytes), created (7 bytes), id; all scores 0; as the counts
-- KEYS[6] HASH  tracked deliveries of the day: id -> state; once full, more in KEYS[6]:N; TTL to ARGV[2] and a day
-- ARGV[5...] ten values per record: id, hash of the id, status (its rank, 1 to 6), time, 1 if a created record
--   else 0, creation time, where that is from (3 told by a created record, 2 told by another, 1 derived from the id
--   or, where the id tells none, the record's time), and endpoint, event type, source, each "=" and its value, or
--   "" if not told. Times are Unix microseconds.
-- Returns {changed, unchanged, late, clamped}. A retry changes nothing and counts as unchanged.

local PROCESSING = 2
local STATE = '>BI7BI7I4I7'

local records = (#ARGV - 4) / 10
if is_late() then return refuse('delivery', records) end

local triples = {}
local function triple_of(number)
  if not triples[number] then
    -- Where the labels were lost, or the number became another's, nothing is told.
    local labels = redis.call('HGET', KEYS[2], '#' .. number) or ''
    local endpoint, event_type, source = labels:match('^(%Z*)%z(%Z*)%z(%Z*)$')
    triples[number] = {endpoint or '', event_type or '', source or ''}
  end
  return triples[number]
end

-- Whether what a record says of a field replaces what is held.
local function is_better(class, at, value, held)
  if held.value == '' then return true end
  if class ~= held.class then return class > held.class end
  if at ~= held.at then return at < held.at end
  return value < held.value
end

-- A state is status, its time, flags, creation time, group number and the time of the labels; where the labels come
-- from records of different kind or time, each one's kind and time follow. Flags: kind of the creation time (2
-- bits), kind of the labels (1 bit), 8 for labels of mixed origin.
local function decode(state)
  local status, status_at, flags, created, number, at, position = struct.unpack(STATE, state)
  local held = {status = status, status_at = status_at, created = created, number = number, created_class = flags % 4}
  local values = triple_of(number)
  for index = 1, 3 do
    local class, field_at = math.floor(flags / 4) % 2, at
    if flags >= 8 then class, field_at, position = struct.unpack('>BI7', state, position) end
    held[index] = {class = class, at = field_at, value = values[index]}
  end
  return held
end

local function encode(held)
  local origin, mixed
  for index = 1, 3 do
    local field = held[index]
    if field.value ~= '' then
      origin = origin or field
      mixed = mixed or field.class ~= origin.class or field.at ~= origin.at
    end
  end
  origin = origin or {class = 0, at = 0}
  local flags = held.created_class + 4 * origin.class + (mixed and 8 or 0)
  local state = struct.pack(STATE, held.status, held.status_at, flags, held.created, held.number, origin.at)
  if mixed then
    for index = 1, 3 do
      local field = held[index].value ~= '' and held[index] or {class = 0, at = 0}
      state = state .. struct.pack('>BI7', field.class, field.at)
    end
  end
  return state
end

local function in_processing(held, id)
  return struct.pack('>I4I7', held.number, held.created) .. id
end

for record = 1, records do
  local from = 5 + (record - 1) * 10
  local id, status, at = ARGV[from], tonumber(ARGV[from + 2]), clamp(tonumber(ARGV[from + 3]))
  local class = tonumber(ARGV[from + 4])
  local created, created_class = tonumber(ARGV[from + 5]), tonumber(ARGV[from + 6])
  local node, state = locate(KEYS[6], id, tonumber(ARGV[from + 1]))
  -- A forgotten id still has its place, and nothing is held there.
  local held = state and state ~= '' and decode(state)
  local counted, indexed
  if held then
    counted = held.number .. ':' .. held.status
    indexed = held.status == PROCESSING and in_processing(held, id)
  else
    local untold = {class = 0, at = 0, value = ''}
    held = {untold, untold, untold, status = 0, status_at = 0, created = 0, created_class = 0, number = 0}
  end

  if at > held.status_at or (at == held.status_at and status > held.status) then
    held.status, held.status_at = status, at
  end

  if created_class > held.created_class or (created_class == held.created_class and created < held.created) then
    held.created, held.created_class = created, created_class
  end

  local relabelled = not counted
  for index = 1, 3 do
    local value = ARGV[from + 6 + index]
    if value ~= '' and is_better(class, at, value, held[index]) then
      relabelled = relabelled or value ~= held[index].value
      held[index] = {class = class, at = at, value = value}
    end
  end
  if relabelled then
    held.number = number_of(held[1].value .. '\0' .. held[2].value .. '\0' .. held[3].value)
  end

  local merged = encode(held)
  if merged == state then
    unchanged = unchanged + 1
  else
    changed = changed + 1
    keep(node, id, merged, not state)
    move(KEYS[4], counted, held.number .. ':' .. held.status)
    local index = held.status == PROCESSING and in_processing(held, id)
    if index ~= indexed then
      if indexed then redis.call('ZREM', KEYS[5], indexed) end
      if index then redis.call('ZADD', KEYS[5], 0, index) end
    end
  end
end
return conclude('delivery', KEYS[3], day)
