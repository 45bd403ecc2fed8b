-- Numbers the groups that counts are to be put for, as the scripts that record do.
--
-- KEYS[1], KEYS[2], ARGV[1], ARGV[2] as in prelude.lua; the day says how many groups there may be
-- ARGV[3...] the labels of a group each, as KEYS[2] has them
-- Returns a number per group, 0 for those beyond the cap. A retry returns the same.

local found = {}
adopt()
for index = 3, #ARGV do found[#found + 1] = number_of(ARGV[index]) end
return found
