-- The least that the role otel_queue must be permitted: the columns that are counted by, and no payload.
--
-- Run by the owner of the gateway's tables, once; CREATE ROLE otel_queue LOGIN PASSWORD '...' comes before it.

GRANT USAGE ON SCHEMA convoy TO otel_queue;
GRANT SELECT (id, project_id, source_id) ON convoy.events TO otel_queue;
GRANT SELECT (project_id, endpoint_id, event_id, event_type, status, created_at, deleted_at)
    ON convoy.event_deliveries TO otel_queue;
GRANT SELECT (project_id, endpoint_id, status, http_status) ON convoy.delivery_attempts TO otel_queue;
GRANT SELECT (id, name, organisation_id) ON convoy.projects TO otel_queue;
GRANT SELECT (id, name) ON convoy.organisations TO otel_queue;
