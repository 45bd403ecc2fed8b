-- Projects with their names of today, deleted ones too.
--
-- Returns id, name, organisation_id, organisation_name ("" if the organisation has no row). Reads both tables.

SELECT p.id, p.name, p.organisation_id, coalesce(o.name, '')
FROM convoy.projects p
LEFT JOIN convoy.organisations o ON o.id = p.organisation_id
