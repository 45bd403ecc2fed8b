-- Deliveries by project, endpoint, status, event type and source, each counted once, and the oldest in Processing.
--
-- Both backlogs are made from the same rows: every group here is a known group, and no group is cut off. A delivery whose
-- event is gone has an unknown source, not 'http'. Deleted deliveries do not count, but age, as they always did.
-- Returns project_id, project_name, endpoint_id, status, event_type, source, organisation_id, organisation_name, total
-- (0 for a group of deleted deliveries), and the age in seconds, at the start of the transaction, of the oldest
-- delivery in Processing: NULL for other statuses, and where no created_at is known.
-- Reads all of event_deliveries and events, once.

WITH event AS (
    SELECT project_id, id, coalesce(min(nullif(source_id, '')), 'http') AS source
    FROM convoy.events
    GROUP BY project_id, id
), delivery AS (
    SELECT
        d.project_id,
        coalesce(d.endpoint_id, '') AS endpoint,
        d.status,
        coalesce(d.event_type, '') AS event_type,
        coalesce(e.source, 'unknown') AS source,
        count(*) FILTER (WHERE d.deleted_at IS NULL) AS total,
        min(d.created_at) FILTER (WHERE d.status = 'Processing') AS oldest
    FROM convoy.event_deliveries d
    LEFT JOIN event e ON e.id = d.event_id AND e.project_id = d.project_id
    GROUP BY 1, 2, 3, 4, 5
)
SELECT
    d.project_id,
    coalesce(p.name, '') AS project_name,
    d.endpoint,
    d.status,
    d.event_type,
    d.source,
    coalesce(p.organisation_id, '') AS organisation_id,
    coalesce(o.name, '') AS organisation_name,
    d.total,
    extract(epoch FROM now() - d.oldest)::float8 AS age_seconds
FROM delivery d
LEFT JOIN convoy.projects p ON p.id = d.project_id
LEFT JOIN convoy.organisations o ON o.id = p.organisation_id
