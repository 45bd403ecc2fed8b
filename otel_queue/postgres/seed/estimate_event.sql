-- How many rows of events the planner expects with ids from `from`, before `until` (NULL: no end).
--
-- `project` is the project, NULL for all. Returns the plan as JSON. Reads statistics alone.

EXPLAIN (FORMAT JSON)
SELECT id
FROM convoy.events
WHERE id >= %(from)s AND (%(until)s::text IS NULL OR id < %(until)s::text)
    AND (%(project)s::text IS NULL OR project_id = %(project)s::text)
