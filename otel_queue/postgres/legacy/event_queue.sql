-- Rows of events by project and source, as the gateway's own metrics count them.
--
-- No filter: duplicates, deleted and failed events count, and an event that was replayed into a partitioned table
-- counts once per row. Sources are grouped as they are stored, so a source named 'http' and none at all are two rows.
-- Returns project_id, source, total. Reads all of events.

SELECT project_id, coalesce(source_id, 'http') AS source, count(*) AS total
FROM convoy.events
GROUP BY project_id, source_id
ORDER BY project_id, source, total DESC
