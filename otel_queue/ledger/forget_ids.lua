-- Takes deliveries, or events, of one project and one day out of the ledger, each unless it changed meanwhile.
--
-- A dated id is forgotten in its place, with an empty state: were it removed, a full node would have room again, and what
-- is kept behind it would not be found any more. A later record for the id is that of a new one.
--
-- KEYS[1], KEYS[2], ARGV[1], ARGV[2] as in prelude.lua
-- KEYS[3] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[4] HASH  tracked deliveries or events of the day; once full, more in KEYS[4]:N
-- ARGV[3] "delivery" or "event": which of them KEYS[4] holds
-- ARGV[4...] three values per id: id, hash of the id, the state that was looked at, as find_ids.lua gives it
-- Returns 1 for each id that was forgotten, 0 for one that was not: all of them if the day is closed. A retry forgets
--   nothing more.

local PROCESSING = 2

local is_closed = not is_undated and (is_expired(day) or is_settled(day) or is_past())

local function forget(id, hash, seen)
  local node, state, of = find(KEYS[4], id, hash)
  if is_undated then state = redis.call('HGET', node, id) end
  if state ~= seen or seen == '' or is_closed then return 0 end
  local origin = origin_of(id, is_undated and of)
  if is_undated then
    redis.call('HDEL', node, id)
    redis.call('ZREM', PREFIX .. 'undated', undated_member(ARGV[3] == 'event' and 'e' or 'd', node, id))
    seen = seen:sub(3)
  else
    redis.call('HSET', node, id, '')
  end
  if not is_expired(of) then
    local member = counted_as(of)
    touched[member] = true
    if ARGV[3] == 'event' then
      take(PREFIX .. 'counts:' .. member, decode_event(seen, origin) .. ':e')
    else
      local held = decode_head(seen, origin)
      take(PREFIX .. 'counts:' .. member, held.number .. ':' .. held.status)
      if held.status == PROCESSING then
        redis.call('ZREM', PREFIX .. 'processing:' .. member, struct.pack('>I4I7', held.number, held.created) .. id)
      end
    end
  end
  return 1
end

local answers = {}
for index = 4, #ARGV, 3 do
  answers[#answers + 1] = forget(ARGV[index], tonumber(ARGV[index + 1]), ARGV[index + 2])
end
if next(touched) then
  adopt()
  local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  for member in pairs(touched) do
    -- A day without counts is not listed: its readers would call it lost.
    if redis.call('EXISTS', PREFIX .. 'counts:' .. member) == 1 then
      redis.call('ZADD', KEYS[3], sequence, member)
    else
      redis.call('ZREM', KEYS[3], member)
    end
  end
end
return answers
