-- Events: one row each time that an event was replayed.
--
-- `wanted` says which (wanted.py). Returns id, project_id, source_id, created_at. Reads what `wanted` names, by an index.

SELECT id, project_id, source_id, created_at
FROM convoy.events
WHERE {wanted}
