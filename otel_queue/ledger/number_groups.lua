-- Numbers the groups that counts are to be put for, as the scripts that record do.
--
-- KEYS[1], KEYS[2], ARGV[4] as in prelude.lua; of ARGV[1] to ARGV[3] nothing depends
-- ARGV[5...] the labels of a group each, as KEYS[2] has them
-- Returns a number per group, 0 for those beyond the cap. A retry returns the same.

local found = {}
for index = 5, #ARGV do found[#found + 1] = number_of(ARGV[index]) end
return found
