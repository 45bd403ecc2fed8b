-- Deliveries in flight: those that are not final.
--
-- `wanted` is TRUE for all of them, or says from when on they were created (wanted.py).
-- Returns id, project_id, status, created_at. Reads the index on status.

SELECT id, project_id, status, created_at
FROM convoy.event_deliveries
WHERE status IN ('Scheduled', 'Processing', 'Retry') AND deleted_at IS NULL AND {wanted}
