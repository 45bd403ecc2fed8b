-- Lists days again that have counts and are not among their project's days, where that key was lost.
--
-- KEYS[1] HASH  meta of the project; permanent
-- KEYS[2] ZSET  days with counts, by the sequence number of their last change; permanent
-- KEYS[3...] HASH  counts of each day of ARGV; for "attempts" the attempts ever
-- ARGV[...] days, YYYYMMDD, "undated", "settled" or "attempts"
-- Returns 1 for each day that is listed now, 0 for one that has no counts. A retry, or a day that a record has listed
-- meanwhile, makes readers look once more.

local answers = {}
for index, day in ipairs(ARGV) do
  answers[index] = 0
  if redis.call('EXISTS', KEYS[index + 2]) == 1 then
    redis.call('ZADD', KEYS[2], redis.call('HINCRBY', KEYS[1], 'sequence', 1), day)
    answers[index] = 1
  end
end
return answers
