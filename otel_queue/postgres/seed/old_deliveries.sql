-- The deliveries of a slice, counted.
--
-- Arguments as in deliveries.sql. The day is the UTC day of created_at (of the id, where the row has none), and
-- `last_day` where that would be later.
-- Returns project_id, day (YYYYMMDD), endpoint_id, status, event_type, whether the event has a row, its source, total.
-- Reads the slice, and for each delivery the rows of its event by their id.

SELECT
    d.project_id,
    least(
        to_char(coalesce(d.created_at, to_timestamp(
            -- The first ten digits of a ULID are its time in milliseconds.
            (SELECT sum((strpos('0123456789ABCDEFGHJKMNPQRSTVWXYZ', substr(d.id, n, 1)) - 1)::bigint << (50 - 5 * n))
                FROM generate_series(1, 10) n) / 1000.0
        )) AT TIME ZONE 'UTC', 'YYYYMMDD'),
        %(last_day)s::text
    ) AS day,
    d.endpoint_id,
    d.status,
    d.event_type,
    e.total > 0 AS has_event,
    e.source,
    count(*) AS total
FROM convoy.event_deliveries d
CROSS JOIN LATERAL (
    SELECT count(*) AS total, min(nullif(source_id, '')) AS source
    FROM convoy.events
    WHERE id = d.event_id AND project_id = d.project_id
) e
WHERE d.id >= %(from)s AND (%(until)s::text IS NULL OR d.id < %(until)s::text)
    AND d.deleted_at IS NULL
    AND (d.id COLLATE "C" ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
        AND d.id COLLATE "C" >= %(lowest)s AND d.id COLLATE "C" < %(highest)s) = %(dated)s
    AND (%(project)s::text IS NULL OR d.project_id = %(project)s::text)
GROUP BY 1, 2, 3, 4, 5, 6, 7
