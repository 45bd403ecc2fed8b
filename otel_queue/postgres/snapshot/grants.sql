-- The least that the role otel_queue must be permitted to read the gateway's snapshot tables, and nothing else.
--
-- Run by the owner of the gateway's tables, once; CREATE ROLE otel_queue LOGIN PASSWORD '...' comes before it.

GRANT USAGE ON SCHEMA convoy TO otel_queue;
GRANT SELECT ON
    convoy.metrics_snapshot_meta,
    convoy.metrics_event_queue,
    convoy.metrics_event_queue_backlog,
    convoy.metrics_event_delivery_queue,
    convoy.metrics_event_endpoint_backlog
TO otel_queue;
