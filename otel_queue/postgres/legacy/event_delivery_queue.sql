-- Deliveries by project, endpoint, status, event type and source, as the gateway's own metrics count them.
--
-- Events are joined by id alone, so a delivery counts once per row of an event that was replayed, and one whose event
-- is gone counts under 'http'. Deleted deliveries do not count. Names are those of today.
-- Returns project_id, project_name, endpoint_id, status, event_type, source, organisation_id, organisation_name, total.
-- Reads all of event_deliveries and events.

SELECT
    d.project_id,
    coalesce(p.name, '') AS project_name,
    coalesce(d.endpoint_id, '') AS endpoint,
    d.status,
    coalesce(d.event_type, '') AS event_type,
    coalesce(e.source_id, 'http') AS source,
    coalesce(p.organisation_id, '') AS organisation_id,
    coalesce(o.name, '') AS organisation_name,
    count(*) AS total
FROM convoy.event_deliveries d
LEFT JOIN convoy.events e ON e.id = d.event_id
LEFT JOIN convoy.projects p ON p.id = d.project_id
LEFT JOIN convoy.organisations o ON o.id = p.organisation_id
WHERE d.deleted_at IS NULL
GROUP BY d.project_id, p.name, coalesce(d.endpoint_id, ''), d.status, d.event_type, e.source_id, p.organisation_id, o.name
ORDER BY d.project_id, endpoint, d.status, event_type, source, total DESC
