-- Events by project and source, each counted once however often it was replayed.
--
-- Duplicates by idempotency key, deleted and failed events count: they are events. An event's source is the least of
-- its rows' sources; a replay copies it, so they are the same.
-- Returns project_id, source, total. Reads all of events.

SELECT project_id, coalesce(source, 'http') AS source, count(*) AS total
FROM (
    SELECT project_id, id, min(nullif(source_id, '')) AS source
    FROM convoy.events
    GROUP BY project_id, id
) event
GROUP BY 1, 2
