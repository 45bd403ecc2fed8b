-- The deliveries in Processing with dated ids from `from` up to `until`, with the source of their events.
--
-- Arguments, and what is returned, as in deliveries.sql. Reads the index of deliveries in Processing.

SELECT
    d.id,
    d.project_id,
    d.endpoint_id,
    d.event_type,
    d.status,
    e.total > 0 AS has_event,
    e.source,
    (extract(epoch FROM d.created_at) * 1000000)::bigint AS created_us,
    (extract(epoch FROM coalesce(d.updated_at, d.created_at)) * 1000000)::bigint AS updated_us
FROM convoy.event_deliveries d
CROSS JOIN LATERAL (
    SELECT count(*) AS total, min(nullif(source_id, '')) AS source
    FROM convoy.events
    WHERE id = d.event_id AND project_id = d.project_id
) e
WHERE d.id >= %(from)s AND (%(until)s::text IS NULL OR d.id < %(until)s::text)
    AND d.status = 'Processing' AND d.deleted_at IS NULL
    AND (d.id COLLATE "C" ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
        AND d.id COLLATE "C" >= %(lowest)s AND d.id COLLATE "C" < %(highest)s) = %(dated)s
    AND (%(project)s::text IS NULL OR d.project_id = %(project)s::text)
ORDER BY d.id
