-- The events of a slice, counted, each once however often it was replayed.
--
-- Arguments as in old_deliveries.sql; the day is that of the event's first row.
-- Returns project_id, day (YYYYMMDD), source (NULL for none and for a blank one), total. Reads the slice.

SELECT project_id, day, source, count(*) AS total
FROM (
    SELECT
        d.project_id,
        min(nullif(d.source_id, '')) AS source,
        least(
            to_char(coalesce(min(d.created_at), to_timestamp(
                -- The first ten digits of a ULID are its time in milliseconds.
                (SELECT sum((strpos('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substr(d.id, n, 1)) - 1)::bigint << (50 - 5 * n))
                    FROM generate_series(1, 10) n) / 1000.0
            )) AT TIME ZONE 'UTC', 'YYYYMMDD'),
            %(last_day)s::text
        ) AS day
    FROM convoy.events d
    WHERE d.id >= %(from)s AND (%(until)s::text IS NULL OR d.id < %(until)s::text)
        AND (d.id COLLATE "C" ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
            AND d.id COLLATE "C" >= %(lowest)s AND d.id COLLATE "C" < %(highest)s) = %(dated)s
        AND (%(project)s::text IS NULL OR d.project_id = %(project)s::text)
    GROUP BY d.id, d.project_id
) event
GROUP BY 1, 2, 3
