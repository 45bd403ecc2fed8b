-- The deliveries of a slice, each once, with the source of its event.
--
-- `from` to `until` (NULL: no end) bound the ids, `project` the project (NULL: all). `dated` says whether ids
-- that are a ULID of 2016 to 2099 are wanted (`lowest` to `highest`), or those that are not.
-- An event that was replayed has several rows, which have its source in common; they are one here.
-- Returns id, project_id, endpoint_id, event_type, status, whether the event has a row, its source (NULL for none and
-- for a blank one), created_at (NULL if the row has none) and updated_at in Unix microseconds, in the order of ids.
-- Reads the slice, and for each delivery the rows of its event by their id.

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
    AND d.deleted_at IS NULL
    AND (d.id COLLATE "C" ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
        AND d.id COLLATE "C" >= %(lowest)s AND d.id COLLATE "C" < %(highest)s) = %(dated)s
    AND (%(project)s::text IS NULL OR d.project_id = %(project)s::text)
ORDER BY d.id
