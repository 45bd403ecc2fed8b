-- The current generation of the gateway's snapshot of legacy/event_delivery_queue.sql.
--
-- Returns project_id, project_name, endpoint_id, status, event_type, source, organisation_id, organisation_name, total.
-- Reads the snapshot alone.

SELECT
    q.project_id, q.project_name, q.endpoint_id, q.status, q.event_type, q.source_id, q.organisation_id,
    q.organisation_name, q.total
FROM convoy.metrics_event_delivery_queue q
JOIN convoy.metrics_snapshot_meta m ON m.name = 'event_delivery_queue' AND m.generation = q.generation
