-- Tells readers which projects changed: gives each of them the next number, so that a reader asks only for those whose
-- number is above the highest it has seen.
--
-- Sent after a project's records were answered, never before: a reader that sees the number finds the records. Where it
-- was lost (the writer died in between), readers find the change when they next look at the whole list.
--
-- KEYS[1] ZSET  projects, by the number of their last announcement; permanent
-- ARGV[...] ids of projects
-- Returns the number. A retry gives another one, which costs each reader one more look at these projects.

local last = redis.call('ZREVRANGE', KEYS[1], 0, 0, 'WITHSCORES')[2] or 0
local number = last + 1
for _, project in ipairs(ARGV) do redis.call('ZADD', KEYS[1], number, project) end
return number
