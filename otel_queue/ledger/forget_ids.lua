-- Takes deliveries, or events, of one project and one day out of the ledger, each unless it changed meanwhile.
--
-- An id is forgotten in its place, with an empty state: were it removed, a full node would have room again, and what
-- is kept behind it would not be found any more. A later record for the id is that of a new one.
--
-- KEYS[1], KEYS[2], ARGV[1], ARGV[2] as in prelude.lua
-- KEYS[3] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[4] HASH  counts of the day
-- KEYS[5] ZSET  deliveries in processing of the day
-- KEYS[6] HASH  tracked deliveries or events of the day; once full, more in KEYS[6]:N
-- ARGV[3] "delivery" or "event": which of them KEYS[6] holds
-- ARGV[4...] three values per id: id, hash of the id, the state that was looked at
-- Returns 1 for each id that was forgotten, 0 for one that was not: all of them if the day is closed. A retry forgets
--   nothing more.

local PROCESSING = 2

local is_closed, forgotten, answers = is_late(), 0, {}
for index = 4, #ARGV, 3 do
  local id, seen = ARGV[index], ARGV[index + 2]
  local node, state = locate(KEYS[6], id, tonumber(ARGV[index + 1]))
  answers[#answers + 1] = 0
  if state == seen and seen ~= '' and not is_closed then
    answers[#answers] = 1
    forgotten = forgotten + 1
    redis.call('HSET', node, id, '')
    if ARGV[3] == 'event' then
      take(KEYS[4], decode_event(seen, origin_of(id)) .. ':e')
    else
      local held = decode_head(seen, origin_of(id))
      take(KEYS[4], held.number .. ':' .. held.status)
      if held.status == PROCESSING then
        redis.call('ZREM', KEYS[5], struct.pack('>I4I7', held.number, held.created) .. id)
      end
    end
  end
end
if forgotten > 0 then
  adopt()
  local sequence = redis.call('HINCRBY', KEYS[1], 'sequence', 1)
  -- A day without counts is not listed: its readers would call it lost.
  if redis.call('EXISTS', KEYS[4]) == 1 then
    redis.call('ZADD', KEYS[3], sequence, day)
  else
    redis.call('ZREM', KEYS[3], day)
  end
end
return answers
