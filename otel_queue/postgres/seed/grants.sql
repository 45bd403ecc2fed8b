-- The least that the role otel_queue must be permitted to seed and to reconcile: no payload, and nothing to write.
--
-- More than serving needs, by ids and times. Run by the owner of the gateway's tables, once;
-- CREATE ROLE otel_queue LOGIN PASSWORD '...' comes before it.

GRANT USAGE ON SCHEMA convoy TO otel_queue;
GRANT SELECT (id, project_id, source_id, created_at) ON convoy.events TO otel_queue;
GRANT SELECT (id, project_id, endpoint_id, event_id, event_type, status, created_at, updated_at, deleted_at)
    ON convoy.event_deliveries TO otel_queue;
GRANT SELECT (id, project_id, endpoint_id, status, http_status, created_at) ON convoy.delivery_attempts TO otel_queue;
GRANT SELECT (id, name, organisation_id) ON convoy.projects TO otel_queue;
GRANT SELECT (id, name) ON convoy.organisations TO otel_queue;
