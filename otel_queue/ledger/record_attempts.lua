-- Counts delivery attempts of one project whose ids are of one day, each id once.
--
-- The counter outlives days and never goes down.
--
-- KEYS[1], KEYS[2], ARGV[1], ARGV[2] as in prelude.lua
-- KEYS[3] HASH  attempts ever: endpoint, NUL, status, NUL, http_status_code -> count; permanent
-- KEYS[4] ZSET  days with counts, by the sequence number of their last change; "attempts" is one of them; permanent
-- KEYS[5] HASH  attempt ids of the day: id -> the number of what it counts under; once full, more in KEYS[5]:N; TTL to a
--   day after their window
-- PREFIX .. attempt-labels  HASH  field of KEYS[3] -> number, and "#number" -> field; permanent
-- ARGV[3...] three values per record: id, hash of the id, field of KEYS[3]
-- Returns {changed, unchanged, late, clamped}. A retry counts as unchanged.

local records = (#ARGV - 2) / 3
if not is_undated then tracked_until = end_of(day) + rule.attempt_days * 86400 end

local labels, attempt_numbers = PREFIX .. 'attempt-labels', {}

-- The number of a field, as the state of an id has it: in as few bytes as it needs.
local function state_of(field)
  if not attempt_numbers[field] then
    local number = redis.call('HGET', labels, field)
    if not number then
      number = new_number(labels)
      redis.call('HSET', labels, field, number, '#' .. number, field)
    end
    attempt_numbers[field] = struct.pack('>I' .. digits_of(tonumber(number)), number)
  end
  return attempt_numbers[field]
end

-- Counts one attempt; beyond the cap on sets of labels, with endpoint `other`. Returns the field that it counts under.
local function count(field)
  if redis.call('HINCRBY', KEYS[3], field, 1) > 1 or redis.call('HLEN', KEYS[3]) <= rule.most_groups then return field end
  redis.call('HDEL', KEYS[3], field)
  field = 'other' .. field:match('%z.*$')
  redis.call('HINCRBY', KEYS[3], field, 1)
  return field
end

for record = 1, records do
  local from = 3 + (record - 1) * 3
  local id, hash = ARGV[from], tonumber(ARGV[from + 1])
  local node, state, of
  if is_undated then
    node, state, of = find(KEYS[5], id, hash)
  else
    node, state = locate(KEYS[5], id, hash)
  end
  list_undated('a', node, id, of)
  if state then
    unchanged = unchanged + 1
  elseif is_past() then
    late = late + 1
  else
    changed = changed + 1
    touched.attempts = true
    keep(node, id, state_of(count(ARGV[from + 2])), of, true)
  end
end
return conclude('attempt', KEYS[4], 1)
