-- Which of `ids` have an event.
--
-- Returns id, once for each. Reads the index of ids.

SELECT DISTINCT id
FROM convoy.events
WHERE id = ANY(%(ids)s::text[])
