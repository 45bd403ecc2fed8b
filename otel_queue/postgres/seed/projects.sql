-- Projects with their names of today.
--
-- `project` is the one that is wanted, NULL for all.
-- Returns id, name, organisation_id, organisation_name ("" if the organisation has no row). Reads both tables.

SELECT p.id, p.name, p.organisation_id, coalesce(o.name, '') AS organisation_name
FROM convoy.projects p
LEFT JOIN convoy.organisations o ON o.id = p.organisation_id
WHERE %(project)s::text IS NULL OR p.id = %(project)s::text
ORDER BY p.id
