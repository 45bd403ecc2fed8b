-- What every script that changes a project begins with: Redis's time, the calendar, and the contract that says how long
-- ids are tracked. It expects
--
-- KEYS[1] HASH  meta of the project; permanent
-- ARGV[1] the ledger's contract as the caller knows it (docs/ledger-protocol.md), or "" for the one that the project has
-- ARGV[2] day, YYYYMMDD, or "undated" where a script says so
--
-- A project keeps a copy of the contract, since a script sees one slot only. A contract grows at its end, and a caller
-- that knows more rules brings them along. One that knows fewer, or others, is refused with OQCONTRACT and what the
-- project has: its contract, nothing where it has none, or `1;` where it was written by protocol 1, which had none.

local VERSION = '2;'

local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local day = ARGV[2]

local held, told = redis.call('HGET', KEYS[1], 'contract'), ARGV[1]
local is_grown = held and #told > #held and told:sub(1, #held) == held
local contract = (held and not is_grown) and held or told
local is_agreed = contract == told or told == ''
if not held and redis.call('EXISTS', KEYS[1]) == 1 then held, is_agreed = '1;', false end
if not is_agreed or contract:sub(1, #VERSION) ~= VERSION then
  return redis.error_reply('OQCONTRACT ' .. (held or ''))
end

-- Keeps the contract that the caller brought. Called when a script has freed what it frees: a full Redis refuses it.
local function adopt()
  if not held or is_grown then redis.call('HSET', KEYS[1], 'contract', contract) end
end

-- The microseconds by which a record's time may be ahead of Redis; and the rule of a day: the last that began by then.
local max_skew = tonumber(contract:match('^%d+;%d+;(%d+);'))
local function rule_of(of)
  local rule
  for from, track_days, attempt_days, most_groups in contract:gmatch('(%d+):(%d+):(%d+):(%d+);') do
    if from <= of then
      rule = {track_days = tonumber(track_days), attempt_days = tonumber(attempt_days), most_groups = tonumber(most_groups)}
    end
  end
  return rule
end

-- Days are counted from 1 March 2000. From there on each fourth year is a leap year, with its leap day as its last; days
-- of ids end with 2099.
local MARCH_2000 = 11017

local function number_of_day(of)
  local year, month, date = tonumber(of:sub(1, 4)) - 2000, tonumber(of:sub(5, 6)) - 3, tonumber(of:sub(7, 8))
  if month < 0 then year, month = year - 1, month + 12 end
  return 365 * year + math.floor(year / 4) + math.floor((153 * month + 2) / 5) + date - 1
end

local function day_of_number(days)
  local year = math.floor((4 * days + 3) / 1461)
  local rest = days - math.floor(1461 * year / 4)
  local month = math.floor((5 * rest + 2) / 153)
  local date = rest - math.floor((153 * month + 2) / 5) + 1
  if month > 9 then year, month = year + 1, month - 12 end
  return string.format('%04d%02d%02d', 2000 + year, month + 3, date)
end

-- The Unix second at which a day ends.
local function end_of(of) return (MARCH_2000 + number_of_day(of) + 1) * 86400 end

-- The Unix second until which a day's deliveries and events are tracked: no day's tracking ends before that of an
-- earlier one, whose rule may have more days.
local function tracked_until_of(of)
  local latest, tracked = 0, 0  -- before the first rule nothing is tracked
  for from, track_days in contract:gmatch('(%d+):(%d+):%d+:%d+;') do
    if from > of then break end
    latest = math.max(latest, end_of(from) - 86400 + tracked)
    tracked = tonumber(track_days) * 86400
  end
  return math.max(latest, end_of(of) + tracked)
end

-- The UTC day that it is now.
local function today() return day_of_number(math.floor(time[1] / 86400) - MARCH_2000) end

