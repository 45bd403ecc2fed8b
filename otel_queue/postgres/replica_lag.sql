-- By how many seconds the state of this server is older than the start of the transaction: 0 unless it is a replica.
--
-- A replica that has a receiver of WAL and has replayed all that this received is up to date, however long ago the last
-- commit was: nothing happens on its primary. Any other one, be it that it replays late or that nobody sends to it, shows
-- the state of the last commit it replayed, or of the last checkpoint if that is later or there was no commit yet.
-- Not seen: a primary that went silent within wal_receiver_timeout, and what a cascade's next server lags behind.
-- Returns one row with one number, by the clocks of the primary and of this server. Any role may ask. Reads no table.

SELECT CASE
    WHEN NOT pg_is_in_recovery() THEN 0
    WHEN pg_last_wal_receive_lsn() = pg_last_wal_replay_lsn() AND EXISTS (SELECT FROM pg_stat_wal_receiver) THEN 0
    ELSE greatest(0, extract(epoch FROM now() - greatest(
        pg_last_xact_replay_timestamp(),
        (SELECT checkpoint_time FROM pg_control_checkpoint())
    )))
END::float8 AS lag_seconds
