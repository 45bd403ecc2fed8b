-- When the gateway last refreshed each of its snapshot tables.
--
-- Returns name, generation, seconds since its refresh at the start of the transaction. Reads a row per table.

SELECT name, generation, extract(epoch FROM now() - refreshed_at)::float8 AS age_seconds
FROM convoy.metrics_snapshot_meta
