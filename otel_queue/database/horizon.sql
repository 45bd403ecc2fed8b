-- What may still be committed: the start of the oldest transaction that is open, if this role may see it.
--
-- To be asked before the state is fixed that rows are read from: a transaction that began earlier, and is neither in that
-- state nor in this answer, does not exist. A row's created_at is when its transaction began.
-- Returns the time now; at a standby the time of the last commit that it has replayed; whether it is a standby; whether
-- open transactions can be seen; the start of the oldest, NULL for none; whether one is prepared, whose start is not told.
-- Times are as the server's clock_timestamp, at microseconds. Reads no table.

SELECT
    (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now_us,
    (extract(epoch FROM pg_last_xact_replay_timestamp()) * 1000000)::bigint AS replayed_us,
    pg_is_in_recovery() AS is_standby,
    pg_has_role('pg_read_all_stats', 'USAGE') AS sees_all,
    (
        SELECT (extract(epoch FROM min(xact_start)) * 1000000)::bigint
        FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()
            AND backend_type NOT IN ('autovacuum worker', 'walsender')
            AND application_name <> {us}
    ) AS oldest_us,
    EXISTS (SELECT FROM pg_prepared_xacts WHERE database = current_database()) AS has_prepared
