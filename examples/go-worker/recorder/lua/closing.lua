-- What the scripts that close days share; put before each of them. It expects
--
-- KEYS[1] HASH  meta of the project; permanent
-- ARGV[1] day, YYYYMMDD
--
-- A day is closed for good, so only one that is over can be, and that is for Redis to say: callers have other clocks.

-- Any other text would sort somewhere among the days, and close those before it for good.
if not ARGV[1]:match('^%d%d%d%d%d%d%d%d$') then
  return redis.error_reply('ERR the day must be YYYYMMDD, not ' .. ARGV[1])
end

-- The UTC day that it is now. From 1 March 2000 on each fourth year is a leap year, with its leap day as its last;
-- days of ids end with 2099.
local function today()
  local days = math.floor(redis.call('TIME')[1] / 86400) - 11017
  local year = math.floor((4 * days + 3) / 1461)
  local rest = days - math.floor(1461 * year / 4)
  local month = math.floor((5 * rest + 2) / 153)
  local date = rest - math.floor((153 * month + 2) / 5) + 1
  if month > 9 then year, month = year + 1, month - 12 end
  return string.format('%04d%02d%02d', 2000 + year, month + 3, date)
end

local is_over = ARGV[1] < today()

-- Closes the day and all before it for records, under `mark` of meta.
local function close(mark)
  local closed = redis.call('HGET', KEYS[1], mark)
  if not closed or closed < ARGV[1] then redis.call('HSET', KEYS[1], mark, ARGV[1]) end
  redis.call('HSETNX', KEYS[1], 'sequence', 0)
end

