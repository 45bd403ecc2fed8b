-- Age of the oldest delivery in Processing by project and source, as the gateway's own metrics take it.
--
-- The thousand oldest groups; 0 for groups with a Success that are not among them; of both the first thousand by name.
-- Both cuts are the gateway's. Deleted deliveries count, and an age may be slightly negative.
-- Returns project_id, source, age in seconds at the start of the transaction, NULL where no created_at is known.
-- Reads the deliveries in Processing and in Success.

WITH processing AS (
    SELECT d.project_id, coalesce(e.source_id, 'http') AS source, now() - min(d.created_at) AS age
    FROM convoy.event_deliveries d
    LEFT JOIN convoy.events e ON e.id = d.event_id
    WHERE d.status = 'Processing'
    GROUP BY 1, 2
    ORDER BY age DESC
    LIMIT 1000
), succeeded AS (
    SELECT DISTINCT d.project_id, coalesce(e.source_id, 'http') AS source
    FROM convoy.event_deliveries d
    LEFT JOIN convoy.events e ON e.id = d.event_id
    WHERE d.status = 'Success'
)
SELECT project_id, source, extract(epoch FROM age)::float8 AS age_seconds
FROM processing
UNION ALL
SELECT project_id, source, 0
FROM succeeded s
WHERE NOT EXISTS (SELECT FROM processing p WHERE p.project_id = s.project_id AND p.source = s.source)
ORDER BY project_id, source
LIMIT 1000
