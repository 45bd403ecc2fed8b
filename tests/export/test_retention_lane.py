"""The lane in which `serve` takes old days out of the counts."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from otel_queue.config.settings import Config, DomainConfig, LedgerConfig, RedisConfig
from otel_queue.configured_lanes import slow_lanes
from otel_queue.errors import ReadError
from otel_queue.lane import Lane
from otel_queue.ledger.upkeep import close_each
from otel_queue.lifecycle import EventCreated
from otel_queue.series_budget import SeriesBudget
from tests.ledger.ledgers import DAY_US, Ledger, day_of, now_us, ulid
from tests.servers.redis import RedisServer, redis_server

WAIT_SECONDS = 30.0
RETENTION_DAYS = 5
NOW_US = now_us()
TODAY = day_of(NOW_US)
OLD, LAST_GONE = (day_of(NOW_US - days * DAY_US) for days in (10, RETENTION_DAYS))


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with redis_server() as running:
        yield running


@pytest.fixture
def ledger(server: RedisServer) -> Iterator[Ledger]:
    """Three projects with an event of today and an old one."""
    opened = Ledger(server.url)
    for project in "abc":
        opened.write(*(EventCreated(project, ulid(at, 1), at) for at in (NOW_US, NOW_US - 10 * DAY_US)))
    yield opened
    opened.close()


def retention(url: str) -> Lane:
    config = Config(
        redis=RedisConfig(url=url),
        domain=DomainConfig(source="ledger"),
        ledger=LedgerConfig(retention_days=RETENTION_DAYS),
    )
    [lane] = [lane for lane in slow_lanes(config, SeriesBudget()) if lane.name == "retention"]
    return lane


def test_old_days_are_taken_out(ledger: Ledger) -> None:
    lane = retention(ledger.url)
    lane.refresh(WAIT_SECONDS)
    assert lane.state().up
    assert [list(ledger.upkeep.days(project)) for project in "abc"] == [[TODAY]] * 3


@pytest.mark.parametrize("days", [-40, 4, 40])
def test_an_exporter_whose_clock_is_off_takes_no_other_day_out(
    ledger: Ledger, server: RedisServer, monkeypatch: pytest.MonkeyPatch, days: int
) -> None:
    truly = time.time
    monkeypatch.setattr(time, "time", lambda: truly() + days * 86_400)
    monkeypatch.setattr(time, "time_ns", lambda: int(time.time() * 1e9))
    retention(ledger.url).refresh(WAIT_SECONDS)
    with server.client() as client:
        assert client.hget("oq:{a}:meta", "expired") == LAST_GONE.encode()
    assert list(ledger.upkeep.days("a")) == [TODAY]


def lose_meta(client: Any) -> None:
    client.delete("oq:{b}:meta")


def replace_days(client: Any) -> None:
    client.delete("oq:{b}:days")
    client.set("oq:{b}:days", "text")


@pytest.mark.parametrize(("damage", "reason"), [(lose_meta, "contract"), (replace_days, "wrong_type")])
def test_a_damaged_project_is_counted_and_named_and_the_lane_goes_on(
    ledger: Ledger,
    server: RedisServer,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Any], None],
    reason: str,
) -> None:
    with server.client() as client:
        damage(client)
    lane = retention(ledger.url)
    lane.refresh(WAIT_SECONDS)
    assert [list(ledger.upkeep.days(project)) for project in "ac"] == [[TODAY]] * 2
    state = lane.state()
    assert (state.up, state.errors) == (True, {reason: 1})
    assert "days are not ended in 1 of 3 projects: b: " in caplog.text


def test_the_lane_is_down_where_every_project_is_refused(ledger: Ledger, server: RedisServer) -> None:
    with server.client() as client:
        for project in "abc":
            client.delete(f"oq:{{{project}}}:meta")
    lane = retention(ledger.url)
    lane.refresh(WAIT_SECONDS)
    state = lane.state()
    assert (state.up, state.errors) == (False, {"contract": 1})
    assert state.last_error is not None
    assert state.last_error.startswith("days are not ended in 3 of 3 projects: a: the project has no contract")


def test_projects_where_nothing_is_due_share_one_look_at_the_contract_and_the_clock(
    ledger: Ledger, server: RedisServer
) -> None:
    projects = [f"idle {number}" for number in range(40)]
    ledger.write(*(EventCreated(project, ulid(NOW_US, 1), NOW_US) for project in projects))
    retention(ledger.url).refresh(WAIT_SECONDS)
    with server.client() as client:
        client.config_resetstat()
        retention(ledger.url).refresh(WAIT_SECONDS)
        asked: Any = client.info("commandstats")
    calls = {name.removeprefix("cmdstat_"): told["calls"] for name, told in asked.items()}
    assert calls.keys().isdisjoint({"eval", "evalsha"}), calls
    assert (calls["hmget"], calls["zrange"]) == (43, 1 + 2 * 43)
    assert calls["get"] <= 2
    assert calls["time"] <= 4


def test_where_redis_goes_away_in_the_middle_the_rest_is_not_tried(ledger: Ledger, server: RedisServer) -> None:
    tried: list[str] = []

    def close(project: str) -> int:
        tried.append(project)
        if project == "b":
            server.process.stop()
        return ledger.upkeep.expire(project, LAST_GONE)

    with pytest.raises(ReadError) as raised:
        list(close_each("abc", close))
    assert (raised.value.reason, tried) == ("connection", ["a", "b"])
