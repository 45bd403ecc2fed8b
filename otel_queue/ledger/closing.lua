-- What the scripts that close days share; put before each of them, behind contract.lua and states.lua. It expects
--
-- KEYS[1], ARGV[1], ARGV[2] as in contract.lua
--
-- A day is closed for good, so only one that is over can be, and that is for Redis to say: callers have other clocks.

-- Any other text would sort somewhere among the days, and close those before it for good.
if not day:match('^%d%d%d%d%d%d%d%d$') then
  return redis.error_reply('ERR the day must be YYYYMMDD, not ' .. day)
end

local is_over = day < today()

-- Closes the day and all before it for records, under `mark` of meta.
local function close(mark)
  adopt()
  local closed = redis.call('HGET', KEYS[1], mark)
  if not closed or closed < day then redis.call('HSET', KEYS[1], mark, day) end
  redis.call('HSETNX', KEYS[1], 'sequence', 0)
end

-- Takes away all ids of a day: the first node and those behind it.
local function forget(base)
  local has_more = redis.call('HLEN', base) >= NODE_ENTRIES
  redis.call('UNLINK', base)
  if not has_more then return end
  local last = 0
  for level = 2, #FANOUTS do last = last + FANOUTS[level] end
  for first = 1, last, 512 do
    local nodes = {}
    for node = first, math.min(first + 511, last) do nodes[#nodes + 1] = base .. ':' .. node end
    redis.call('UNLINK', unpack(nodes))
  end
end

