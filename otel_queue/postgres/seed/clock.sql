-- The database's time, in Unix microseconds: what was committed before it is seen by all that is read from now on.
--
-- At a standby that is not now, but when the last transaction that it has replayed was committed, or its last
-- checkpoint if that is later. A server that was a standby once still tells that time, so it is asked whether it is one.

SELECT (extract(epoch FROM CASE
    WHEN pg_is_in_recovery()
        THEN greatest(pg_last_xact_replay_timestamp(), (SELECT checkpoint_time FROM pg_control_checkpoint()))
    ELSE now()
END) * 1000000)::bigint AS now_us
