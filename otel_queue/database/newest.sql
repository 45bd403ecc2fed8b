-- The time of creation of the newest row that can be seen of a table; NULL for a table without one.
--
-- Reads the end of the index on created_at.

SELECT max(created_at)
FROM {table}
