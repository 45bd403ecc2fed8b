-- Which of `ids` have a delivery that is not deleted.
--
-- Returns id, once for each. Reads the index of ids.

SELECT DISTINCT id
FROM convoy.event_deliveries
WHERE id = ANY(%(ids)s::text[]) AND deleted_at IS NULL
