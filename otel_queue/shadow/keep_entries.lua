-- Replaces entries of the shadow's journal, each only if it is still the one that was read.
--
-- KEYS[1] HASH  metric -> entry (JSON); TTL, renewed here
-- ARGV[1] TTL in milliseconds
-- ARGV[2...] per entry: metric, SHA-1 of the entry that was read ("" for none), the new entry
-- Returns how many were replaced. A retry finds its own entries in the way, and replaces none.

local kept = 0
for at = 2, #ARGV, 3 do
  local held = redis.call('HGET', KEYS[1], ARGV[at])
  if (held and redis.sha1hex(held) or '') == ARGV[at + 1] then
    redis.call('HSET', KEYS[1], ARGV[at], ARGV[at + 2])
    kept = kept + 1
  end
end
redis.call('PEXPIRE', KEYS[1], ARGV[1])
return kept
