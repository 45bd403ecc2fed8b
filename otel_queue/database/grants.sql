-- The least that the role otel_queue must be permitted to follow: ids, labels, statuses and times, no payload, and nothing
-- to write.
--
-- Run by the owner of the gateway's tables, once; CREATE ROLE otel_queue LOGIN PASSWORD '...' comes before it. A superuser
-- may add GRANT pg_read_all_stats TO otel_queue: then a look waits for open transactions, however long they take, and
-- reads less twice. Without it a look reads the last follow.overlap_seconds again, and a sweep finds what was open longer.

GRANT USAGE ON SCHEMA convoy TO otel_queue;
GRANT SELECT (id, project_id, source_id, created_at) ON convoy.events TO otel_queue;
GRANT SELECT (id, project_id, endpoint_id, event_id, event_type, status, created_at, updated_at, deleted_at)
    ON convoy.event_deliveries TO otel_queue;
GRANT SELECT (id, project_id, endpoint_id, event_delivery_id, status, http_status, created_at)
    ON convoy.delivery_attempts TO otel_queue;
GRANT SELECT (id, name, organisation_id) ON convoy.projects TO otel_queue;
GRANT SELECT (id, name) ON convoy.organisations TO otel_queue;
