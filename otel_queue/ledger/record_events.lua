-- Counts events of one project and one day, each once, by their source.
--
-- The same event may be told of again with another time or source: the earliest record that tells a source wins,
-- then the smaller source, so any order and any repetition ends in the same state.
--
-- KEYS[1], KEYS[2], ARGV[1], ARGV[2] as in prelude.lua; a group is "event" and the source
-- KEYS[3] ZSET  days with counts, by the sequence number of their last change; permanent
-- PREFIX .. counts:DAY  HASH  "number:e" -> events; until the day expires or is folded
-- KEYS[4] HASH  tracked events of the day: id -> state; once full, more in KEYS[4]:N; TTL to a week after tracking
-- ARGV[3...] four values per record: id, hash of the id, time in Unix microseconds, and "=" and the source, or ""
--   if it was not told
-- Returns {changed, unchanged, late, clamped}. A retry changes nothing and counts as unchanged.

local records = (#ARGV - 2) / 4

local function is_better(at, source, held_at, held_source)
  if (source == '') ~= (held_source == '') then return source ~= '' end
  if at ~= held_at then return at < held_at end
  return source < held_source
end

local function merge(from)
  local id, hash, source = ARGV[from], tonumber(ARGV[from + 1]), ARGV[from + 3]
  local node, state, of = find(KEYS[4], id, hash)
  if is_expired(of) or is_settled(of) or (not state and is_past()) then
    late = late + 1
    return
  end
  list_undated('e', node, id, of)
  local at, origin = clamp(tonumber(ARGV[from + 2])), origin_of(id, is_undated and of)
  -- A forgotten id still has its place, and nothing is held there.
  local is_held = state and state ~= ''
  local held_number, held_at, held_source
  if is_held then
    held_number, held_at = decode_event(state, origin)
    held_source = (redis.call('HGET', KEYS[2], '#' .. held_number) or 'event'):sub(6)
  end
  if is_held and not is_better(at, source, held_at, held_source) then
    unchanged = unchanged + 1
    return
  end
  changed = changed + 1
  touched[of] = true
  local number = number_of('event' .. source)
  keep(node, id, encode_event(number, at, origin), of, not state)
  move(PREFIX .. 'counts:' .. of, held_number and held_number .. ':e', number .. ':e')
end

for record = 1, records do merge(3 + (record - 1) * 4) end
return conclude('event', KEYS[3], 7)
