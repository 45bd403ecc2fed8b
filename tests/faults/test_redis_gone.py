from tests.faults.drill import (
    IMPATIENT,
    errors,
    fill,
    is_down,
    is_up,
    shows,
    true_or_absent,
    wait_for_values,
)
from tests.servers.otel_queue import serve
from tests.servers.redis import redis_server


def test_redis_is_killed_and_started_again() -> None:
    """During: up 0 and connection errors; the last values until they are stale, then no queue series.
    After: up 1 and true values, though the new Redis had to be filled again.
    """
    with redis_server() as server, serve(server.url, config=IMPATIENT) as served:
        fill(server.client())
        wait_for_values(served)
        server.kill()
        down = served.scrape_until(is_down, what="up is 0", always=true_or_absent)
        absent = served.scrape_until(
            lambda scrape: not scrape.queue_names(), what="no queue series is left", always=true_or_absent
        )
        assert errors(absent, "connection") > errors(down, "connection") >= 1
        assert served.get("/healthz") == 200
        assert served.get("/readyz") == 503
        server.start()
        fill(server.client())
        wait_for_values(served)
        assert served.get("/readyz") == 200


def test_redis_is_stopped_and_goes_on() -> None:
    """During: up 0 and timeouts; the connection stays open, yet no scrape waits for it beyond its budget. The last
    values, then none. After: the same values again.
    """
    with redis_server() as server, serve(server.url, config=IMPATIENT) as served:
        fill(server.client())
        wait_for_values(served)
        server.pause()
        served.scrape_until(
            lambda scrape: is_down(scrape) and errors(scrape, "timeout") > 0 and not scrape.queue_names(),
            what="up is 0, a timeout is counted, and no queue series is left",
            always=true_or_absent,
        )
        server.resume()
        served.scrape_until(
            lambda scrape: is_up(scrape) and shows(scrape), what="the values are back", always=true_or_absent
        )


def test_redis_is_gone_for_less_than_max_staleness() -> None:
    """During: up 0 beside the last values, and their age says how old they are. After: no gap in any series."""
    patient = IMPATIENT.replace("max_staleness_seconds = 1.0", "max_staleness_seconds = 60.0")
    with redis_server() as server, serve(server.url, config=patient) as served:
        fill(server.client())
        first = wait_for_values(served)
        server.pause()
        down = served.scrape_until(
            lambda scrape: is_down(scrape) and errors(scrape, "timeout") >= 2, what="two timeouts are counted"
        )
        assert shows(down)
        assert down.queue_names() >= first.queue_names()
        age = down.value("otel_queue_snapshot_age_seconds", lane="queue")
        assert age is not None
        # Two timeouts of 0.5 s passed since the snapshot.
        assert age >= 1.0
        server.resume()
        served.scrape_until(is_up, what="up is 1", always=lambda scrape: _assert_shown(shows(scrape)))


def _assert_shown(is_shown: bool) -> None:
    assert is_shown, "a series had a gap"


def test_redis_comes_up_after_otel_queue() -> None:
    """During: serve starts, answers, says up 0, and exports nothing about queues, not even Convoy's zeros.
    After: all is there, without a restart.
    """
    with redis_server() as server:
        server.kill()
        with serve(server.url, config=IMPATIENT) as served:
            down = served.scrape_until(is_down, what="up is 0", always=true_or_absent)
            assert down.queue_names() == set()
            server.start()
            fill(server.client())
            wait_for_values(served)


def test_an_empty_redis_is_not_a_broken_one() -> None:
    """No queue exists yet: up 1, no series of any queue, and Convoy's two gauges are a true 0."""
    with redis_server() as server, serve(server.url, config=IMPATIENT) as served:
        scrape = served.scrape_until(is_up, what="up is 1")
        assert scrape.values("asynq_queue_size") == []
        assert scrape.value("convoy_event_queue_scheduled_total") == 0
        assert scrape.value("convoy_event_workflow_queue_match_subscriptions_total") == 0


def test_the_password_is_changed() -> None:
    """During: connections that are open go on; once they are cut, up 0 and errors of reason auth. After the old
    password is set again: the values.
    """
    with redis_server(password="first") as server, serve(server.url, config=IMPATIENT) as served:
        admin = server.client()
        fill(admin)
        wait_for_values(served)
        admin.config_set("requirepass", "second")
        admin.client_kill_filter(_type="normal", skipme=True)
        served.scrape_until(
            lambda scrape: is_down(scrape) and errors(scrape, "auth") > 0 and not scrape.queue_names(),
            what="up is 0, the reason is auth, and no queue series is left",
            always=true_or_absent,
        )
        assert "first" not in served.process.logs()
        admin.config_set("requirepass", "first")
        wait_for_values(served)
