-- The current generation of the gateway's snapshot of legacy/event_queue.sql.
--
-- Returns project_id, source, total. Reads the snapshot alone.

SELECT q.project_id, q.source_id, q.total
FROM convoy.metrics_event_queue q
JOIN convoy.metrics_snapshot_meta m ON m.name = 'event_queue' AND m.generation = q.generation
