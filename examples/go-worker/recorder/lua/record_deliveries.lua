-- Merges records of deliveries of one project and one day into the ledger.
--
-- A delivery holds a status register and labels with a creation time, merged apart. A status that was set, or read from a
-- row, beats the one that a created record tells, whatever the clocks say; else the later wins, then the higher rank.
-- Labels: what a row says beats what a created record says, and that beats the rest. Of two rows the later wins, of two
-- others the earlier, then the smaller value. Any order and any repetition of the same records ends in the same state, as
-- long as no time was set back. Counts move with the delivery; nothing is subtracted for a delivery that is not held.
--
-- KEYS[1], KEYS[2], ARGV[1], ARGV[2] as in prelude.lua; a group is endpoint, event type and source
-- KEYS[3] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[4] HASH  tracked deliveries of the day: id -> state; once full, more in KEYS[4]:N; TTL to a week after tracking
-- PREFIX .. counts:DAY      HASH  "number:status" -> deliveries; until the day expires or is folded
-- PREFIX .. processing:DAY  ZSET  deliveries in processing: number (4 bytes), created (7 bytes), id; all scores 0; as the
--   counts
-- ARGV[3...] ten values per record: id, hash of the id, status (its rank, 1 to 6), time, its kind (0 a status was set,
--   1 created, 2 a row was read), creation time, where that is from (4 told by a row, 3 by a created record, 2 by a
--   status set, 1 derived from the id or, where the id tells none, the record's time), and endpoint, event type, source, each "=" and its value, or
--   "" if not told. Times are Unix microseconds.
-- Returns {changed, unchanged, late, clamped}. A retry changes nothing and counts as unchanged.

local PROCESSING = 2
-- Bits of the byte behind the head, where there is one: labels of mixed origin, each one's kind and time; then the
-- latest status whose time was set back, as it was told: its time, its rank, and 8 if it was set and not created.
local MIXED, AHEAD = 1, 2
-- A time that is told is kept in seven bytes.
local FARTHEST = 2 ^ 55

local records = (#ARGV - 2) / 10

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
local function is_better(kind, at, value, held)
  if held.value == '' then return true end
  if kind ~= held.kind then return kind > held.kind end
  if at ~= held.at then return (at > held.at) == (kind == ROW) end
  return value < held.value
end

local function decode(state, origin)
  local held, position = decode_head(state, origin)
  local values, more = triple_of(held.number), 0
  if held.has_more then more, position = state:byte(position), position + 1 end
  for index = 1, 3 do
    local kind, at = held.labels_kind, held.labels_at
    if more % 2 == MIXED then kind, at, position = struct.unpack('>BI7', state, position) end
    held[index] = {kind = kind, at = at, value = values[index]}
  end
  if more >= AHEAD then held.ahead_at, held.ahead_rank = struct.unpack('>I7B', state, position) end
  return held
end

local function encode(held, origin)
  local first, is_mixed
  for index = 1, 3 do
    local field = held[index]
    if field.value ~= '' then
      first = first or field
      is_mixed = is_mixed or field.kind ~= first.kind or field.at ~= first.at
    end
  end
  -- Where no label is told, their time is that of the status, which takes no room of its own.
  first = first or {kind = SET, at = held.status_at}
  held.labels_kind, held.labels_at = first.kind, first.at
  is_mixed = is_mixed or first.kind ~= SET and first.kind ~= labels_kind_of(1, held.created_kind)
  held.has_more = is_mixed or held.ahead_at
  local state = encode_head(held, origin)
  if not held.has_more then return state end
  state = state .. string.char((is_mixed and MIXED or 0) + (held.ahead_at and AHEAD or 0))
  for index = 1, is_mixed and 3 or 0 do
    local field = held[index].value ~= '' and held[index] or {kind = 0, at = 0}
    state = state .. struct.pack('>BI7', field.kind, field.at)
  end
  return held.ahead_at and state .. struct.pack('>I7B', held.ahead_at, held.ahead_rank) or state
end

-- Whether a status that is told for `told_at`, which was set back, is later than all that were set back before it. One
-- that is not is an old one that comes again: with Redis's now for its time it would beat what truly came after it.
local function is_new_ahead(held, told_at, rank)
  if held.ahead_at then
    local was_set, is_set = held.ahead_rank >= 8, rank >= 8
    if was_set ~= is_set then
      if was_set then return false end
    elseif told_at < held.ahead_at or (told_at == held.ahead_at and rank <= held.ahead_rank) then
      return false
    end
  end
  held.ahead_at, held.ahead_rank = told_at, rank
  return true
end

local function is_later(is_set, at, status, held)
  if held.status == 0 then return true end
  if is_set ~= held.is_set then return is_set end
  return at > held.status_at or (at == held.status_at and status > held.status)
end

local function in_processing(held, id)
  return struct.pack('>I4I7', held.number, held.created) .. id
end

local counts_prefix, index_prefix = PREFIX .. 'counts:', PREFIX .. 'processing:'

-- Merges one record into what is held of its delivery.
local function merge(from)
  local id, hash, status, told_at = ARGV[from], tonumber(ARGV[from + 1]), tonumber(ARGV[from + 2]), tonumber(ARGV[from + 3])
  local node, state, of = find(KEYS[4], id, hash)
  if is_expired(of) or (not state and (is_settled(of) or is_past())) then
    late = late + 1
    return
  end
  list_undated('d', node, id, of)
  local at, was_ahead = clamp(told_at)
  local kind = tonumber(ARGV[from + 4])
  local is_set, origin = kind ~= CREATED, origin_of(id, is_undated and of)
  local created, created_kind = tonumber(ARGV[from + 5]), tonumber(ARGV[from + 6])
  -- A forgotten id still has its place, and nothing is held there.
  local held = state and state ~= '' and decode(state, origin)
  local counted, indexed
  if held then
    counted = held.number .. ':' .. held.status
    indexed = held.status == PROCESSING and in_processing(held, id)
  else
    local untold = {kind = 0, at = 0, value = ''}
    held = {untold, untold, untold, status = 0, status_at = 0, created = 0, created_kind = 0, number = 0}
  end

  local is_new = not was_ahead or is_new_ahead(held, math.min(told_at, FARTHEST), status + (is_set and 8 or 0))
  if is_new and is_later(is_set, at, status, held) then
    held.status, held.status_at, held.is_set = status, at, is_set
  end

  if created_kind > held.created_kind or (created_kind == held.created_kind and created < held.created) then
    held.created, held.created_kind = created, created_kind
  end

  local relabelled = not counted
  for index = 1, 3 do
    local value = ARGV[from + 6 + index]
    if value ~= '' and is_better(kind, at, value, held[index]) then
      relabelled = relabelled or value ~= held[index].value
      held[index] = {kind = kind, at = at, value = value}
    end
  end
  if relabelled then
    held.number = number_of(held[1].value .. '\0' .. held[2].value .. '\0' .. held[3].value)
  end

  local merged = encode(held, origin)
  if merged == state then
    unchanged = unchanged + 1
    return
  end
  changed = changed + 1
  local member = counted_as(of)
  touched[member] = true
  keep(node, id, merged, of, not state)
  keep_open(node, id, merged, of, held.status)
  move(counts_prefix .. member, counted, held.number .. ':' .. held.status)
  local index = held.status == PROCESSING and in_processing(held, id)
  if index ~= indexed then
    if indexed then redis.call('ZREM', index_prefix .. member, indexed) end
    if index then redis.call('ZADD', index_prefix .. member, 0, index) end
  end
end

for record = 1, records do merge(3 + (record - 1) * 10) end
-- A week is the time that there is to settle the day, with its deliveries that are not final.
return conclude('delivery', KEYS[3], 7)
