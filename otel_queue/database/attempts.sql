-- Delivery attempts; one row is one HTTP call.
--
-- `wanted` says which (wanted.py). Returns id, project_id, endpoint_id, event_delivery_id, status, http_status,
-- created_at. Reads what `wanted` names, by an index.

SELECT id, project_id, endpoint_id, event_delivery_id, coalesce(status, false), http_status, created_at
FROM convoy.delivery_attempts
WHERE {wanted}
