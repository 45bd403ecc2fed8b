-- Which of `ids` have a delivery attempt.
--
-- Returns id, once for each. Reads the index of ids.

SELECT DISTINCT id
FROM convoy.delivery_attempts
WHERE id = ANY(%(ids)s::text[])
