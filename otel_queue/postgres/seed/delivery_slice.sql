-- Where a slice of deliveries ends, and the database's clock.
--
-- `from` and `before` bound the ids (`before` NULL: no bound); `rows` is how many rows a slice has.
-- Returns the start of the transaction in Unix microseconds, and the id that the next slice begins with, NULL if there
-- is none. Rows with the same id are in one slice. Reads the index of ids, `rows` entries and a few.

SELECT
    (extract(epoch FROM now()) * 1000000)::bigint AS read_us,
    (
        SELECT id
        FROM convoy.event_deliveries
        WHERE id > %(from)s AND (%(before)s::text IS NULL OR id < %(before)s::text)
        ORDER BY id
        OFFSET %(rows)s - 1
        LIMIT 1
    ) AS until
