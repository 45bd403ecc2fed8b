-- Adds attempts from before the ledger's window to the counter, each part of them once: where it begins, which is stated.
--
-- KEYS[1], KEYS[2], ARGV[1], ARGV[2] as in prelude.lua
-- KEYS[3] HASH  attempts ever: endpoint, NUL, status, NUL, http_status_code -> count; permanent
-- KEYS[4] ZSET  days with counts, by the sequence number of their last change; "attempts" is one of them; permanent
-- ARGV[3] the number of this part, from 1; `baseline` of meta is the last part that was added
-- ARGV[4...] two values per set of labels: field of KEYS[3], its count
-- Returns 1, or 0 if this part, or a later one, was added before. A retry returns 0.

local part = tonumber(ARGV[3])
if tonumber(redis.call('HGET', KEYS[1], 'baseline') or 0) >= part then return 0 end
for from = 4, #ARGV, 2 do
  local field, count = ARGV[from], ARGV[from + 1]
  if redis.call('HEXISTS', KEYS[3], field) == 0 and redis.call('HLEN', KEYS[3]) >= rule.most_groups then
    field = 'other' .. field:match('%z.*$')
  end
  redis.call('HINCRBY', KEYS[3], field, count)
end
adopt()
redis.call('HSET', KEYS[1], 'baseline', part)
redis.call('ZADD', KEYS[4], redis.call('HINCRBY', KEYS[1], 'sequence', 1), 'attempts')
return 1
