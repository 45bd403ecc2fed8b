-- The delivery attempts of a slice; one row is one HTTP call.
--
-- Arguments as in deliveries.sql.
-- Returns id, project_id, endpoint_id, succeeded, http_status, created_at in Unix microseconds, in the order of ids.
-- Reads the slice.

SELECT
    d.id,
    d.project_id,
    d.endpoint_id,
    coalesce(d.status, false) AS succeeded,
    d.http_status,
    (extract(epoch FROM d.created_at) * 1000000)::bigint AS created_us
FROM convoy.delivery_attempts d
WHERE d.id >= %(from)s AND (%(until)s::text IS NULL OR d.id < %(until)s::text)
    AND (d.id COLLATE "C" ~ '^[0-7][0-9A-HJKMNP-TV-Z]{25}$'
        AND d.id COLLATE "C" >= %(lowest)s AND d.id COLLATE "C" < %(highest)s) = %(dated)s
    AND (%(project)s::text IS NULL OR d.project_id = %(project)s::text)
ORDER BY d.id
