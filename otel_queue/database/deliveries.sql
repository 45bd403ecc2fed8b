-- Deliveries, deleted ones too.
--
-- `wanted` says which (wanted.py). Returns id, project_id, endpoint_id, event_type, event_id, status, created_at,
-- updated_at, whether it is deleted. Reads what `wanted` names, by an index.

SELECT id, project_id, endpoint_id, event_type, event_id, status, created_at, updated_at, deleted_at IS NOT NULL
FROM convoy.event_deliveries
WHERE {wanted}
