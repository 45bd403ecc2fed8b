-- Makes deliveries of settled days known one by one, that were never tracked and are not final: the day's counts have
-- them already (replace_counts.lua), and their records move those from then on.
--
-- KEYS[1], KEYS[2], ARGV[1] as in prelude.lua; a group is endpoint, event type and source
-- ARGV[2] day, YYYYMMDD: that of all ids of the call
-- PREFIX .. open:N  HASH  as in states.lua
-- ARGV[3...] five values per delivery: id, status (its rank, 1 to 3), time of the status, creation time, and its group as
--   KEYS[2] has it. Times are Unix microseconds.
-- Returns how many became known; an error for a day that is not settled. A retry makes none known twice, and one that is
-- known already stays as it is.

if not is_settled(day) then return redis.error_reply('ERR ' .. day .. ' is not settled') end
local TOLD_BY_CREATED = 3

local put = 0
for from = 3, #ARGV, 5 do
  local id, status_at, created = ARGV[from], tonumber(ARGV[from + 2]), tonumber(ARGV[from + 3])
  local held = {
    status = tonumber(ARGV[from + 1]), status_at = status_at, is_set = true, labels_at = status_at, labels_kind = 1,
    created = created, created_kind = TOLD_BY_CREATED, number = number_of(ARGV[from + 4]), has_more = false,
  }
  if not is_expired(day) then put = put + redis.call('HSETNX', open_node(id), id, encode_head(held, origin_of(id))) end
end
return put
