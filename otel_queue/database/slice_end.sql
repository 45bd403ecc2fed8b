-- Where a slice of a table ends: the time of creation of the row that is `rows` rows behind `since`.
--
-- Returns one time, or no row if there are fewer rows before `until`. Reads the index on created_at, `rows` entries.

SELECT created_at
FROM {table}
WHERE created_at >= {since} AND created_at < {until}
ORDER BY created_at
OFFSET {rows}
LIMIT 1
