-- The events of a slice, each once however often it was replayed.
--
-- Arguments as in deliveries.sql. Duplicates by idempotency key, deleted and failed events are events.
-- Returns id, project_id, source (NULL for none and for a blank one), created_at in Unix microseconds, in the order of
-- ids. Reads the slice.

SELECT
    d.id,
    d.project_id,
    min(nullif(d.source_id, '')) AS source,
    (extract(epoch FROM min(d.created_at)) * 1000000)::bigint AS created_us
FROM convoy.events d
WHERE d.id >= %(from)s AND (%(until)s::text IS NULL OR d.id < %(until)s::text)
    AND (d.id COLLATE "C" ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
        AND d.id COLLATE "C" >= %(lowest)s AND d.id COLLATE "C" < %(highest)s) = %(dated)s
    AND (%(project)s::text IS NULL OR d.project_id = %(project)s::text)
GROUP BY d.id, d.project_id
ORDER BY d.id
