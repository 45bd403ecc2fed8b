-- Whether the large tables are partitioned, and the partitions of the deliveries and the events.
--
-- Returns the name of the table, and the bounds of a partition as text, NULL for a table that is not partitioned. Reads
-- the catalog, and locks no partition. Any role may ask.

SELECT t.relname, pg_get_expr(p.relpartbound, p.oid)
FROM pg_class t
JOIN pg_namespace n ON n.oid = t.relnamespace
LEFT JOIN pg_inherits i ON i.inhparent = t.oid
LEFT JOIN pg_class p ON p.oid = i.inhrelid
WHERE n.nspname = 'convoy' AND t.relname IN ('event_deliveries', 'events')
