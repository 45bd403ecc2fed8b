-- Whether a project has a row that was created before `until`: in a partition of an earlier day, or in the default one.
--
-- Returns one truth value. Reads the partitions of the project up to then, by their indexes on created_at.

SELECT EXISTS (SELECT FROM convoy.event_deliveries WHERE project_id = {project} AND created_at < {until})
    OR EXISTS (SELECT FROM convoy.events WHERE project_id = {project} AND created_at < {until})
