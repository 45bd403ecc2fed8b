-- The gateway's tables as far as its metrics and their privileges need them, before any partitioning.

CREATE SCHEMA convoy;

CREATE TYPE convoy.delivery_mode AS ENUM ('at_least_once', 'at_most_once');

CREATE TABLE convoy.organisations (
    id varchar PRIMARY KEY,
    name text NOT NULL,
    deleted_at timestamptz
);

CREATE TABLE convoy.projects (
    id varchar PRIMARY KEY,
    name text NOT NULL,
    type text NOT NULL DEFAULT 'outgoing',
    organisation_id varchar NOT NULL,
    deleted_at timestamptz
);

CREATE TABLE convoy.events (
    id varchar NOT NULL,
    event_type text NOT NULL,
    endpoints text,
    project_id varchar NOT NULL,
    source_id varchar,
    headers jsonb,
    raw text NOT NULL DEFAULT '{}',
    data bytea NOT NULL DEFAULT '{}',
    idempotency_key text,
    is_duplicate_event boolean DEFAULT false,
    status text,
    acknowledged_at timestamptz,
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp,
    deleted_at timestamptz,
    CONSTRAINT events_pkey PRIMARY KEY (id)
);
CREATE INDEX events_by_source ON convoy.events (project_id, source_id);
CREATE INDEX events_by_time ON convoy.events (created_at);

CREATE TABLE convoy.event_deliveries (
    id varchar NOT NULL,
    status text NOT NULL,
    description text NOT NULL DEFAULT '',
    project_id varchar NOT NULL,
    endpoint_id varchar,
    event_id varchar NOT NULL,
    subscription_id varchar NOT NULL DEFAULT '',
    metadata jsonb,
    headers jsonb,
    event_type text,
    idempotency_key text,
    acknowledged_at timestamptz,
    latency_seconds numeric,
    delivery_mode convoy.delivery_mode NOT NULL DEFAULT 'at_least_once',
    created_at timestamptz DEFAULT current_timestamp,
    updated_at timestamptz DEFAULT current_timestamp,
    deleted_at timestamptz,
    CONSTRAINT event_deliveries_pkey PRIMARY KEY (id)
);
CREATE INDEX deliveries_in_processing ON convoy.event_deliveries (status, project_id, endpoint_id, event_id, created_at)
    WHERE status = 'Processing';
CREATE INDEX deliveries_in_success ON convoy.event_deliveries (status, project_id, endpoint_id, event_id)
    WHERE status = 'Success';

CREATE INDEX deliveries_by_time ON convoy.event_deliveries (created_at);
CREATE INDEX deliveries_by_status ON convoy.event_deliveries (status);

CREATE TABLE convoy.delivery_attempts (
    id varchar NOT NULL,
    url text NOT NULL DEFAULT '',
    method text NOT NULL DEFAULT 'POST',
    project_id varchar NOT NULL,
    endpoint_id varchar NOT NULL,
    event_delivery_id varchar NOT NULL,
    request_http_header jsonb,
    response_http_header jsonb,
    http_status varchar,
    response_data bytea,
    error text,
    status boolean,
    created_at timestamptz DEFAULT current_timestamp,
    deleted_at timestamptz,
    CONSTRAINT delivery_attempts_pkey PRIMARY KEY (id)
);
CREATE INDEX attempts_by_time ON convoy.delivery_attempts (created_at);

CREATE TABLE convoy.metrics_snapshot_meta (name text PRIMARY KEY, generation bigint NOT NULL, refreshed_at timestamptz);
INSERT INTO convoy.metrics_snapshot_meta
SELECT name, 0, NULL
FROM unnest(ARRAY['event_queue', 'event_queue_backlog', 'event_delivery_queue', 'event_endpoint_backlog']) AS name;

CREATE TABLE convoy.metrics_event_queue (
    generation bigint, project_id text, source_id text, total bigint NOT NULL,
    PRIMARY KEY (generation, project_id, source_id)
);
CREATE TABLE convoy.metrics_event_queue_backlog (
    generation bigint, project_id text, source_id text, age_seconds float8 NOT NULL,
    PRIMARY KEY (generation, project_id, source_id)
);
CREATE TABLE convoy.metrics_event_delivery_queue (
    generation bigint, project_id text, project_name text NOT NULL, endpoint_id text, status text, event_type text,
    source_id text, organisation_id text, organisation_name text NOT NULL, total bigint NOT NULL,
    PRIMARY KEY (generation, project_id, endpoint_id, status, event_type, source_id, organisation_id)
);
CREATE TABLE convoy.metrics_event_endpoint_backlog (
    generation bigint, project_id text, source_id text, endpoint_id text, age_seconds float8 NOT NULL,
    PRIMARY KEY (generation, project_id, source_id, endpoint_id)
);
