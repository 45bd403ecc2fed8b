-- The current generation of the gateway's snapshot of legacy/event_queue_backlog.sql.
--
-- Returns project_id, source, age in seconds when the snapshot was made. Reads the snapshot alone.

SELECT q.project_id, q.source_id, q.age_seconds
FROM convoy.metrics_event_queue_backlog q
JOIN convoy.metrics_snapshot_meta m ON m.name = 'event_queue_backlog' AND m.generation = q.generation
