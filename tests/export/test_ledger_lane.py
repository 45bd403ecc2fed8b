"""From a ledger in a real Redis to what is scraped and pushed."""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import pytest

from otel_queue.config import Config, DomainConfig, LedgerConfig, QueueConfig, RedisConfig, load_config
from otel_queue.ledger.families import ledger_families
from otel_queue.ledger.project import Labels as Told
from otel_queue.ledger.project import Project
from otel_queue.ledger.reader import LedgerSnapshot
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import (
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from otel_queue.pipeline import Pipeline
from otel_queue.redis_client import connect
from otel_queue.samples import Family
from otel_queue.series_budget import SeriesBudget
from otel_queue.ulid import new_ulid
from tests.export.ways_out import (
    CLASSIC,
    OPENMETRICS,
    Labels,
    Sink,
    labels,
    metrics_of,
    otlp_sink,
    parsed,
    points_of,
    values_of,
)
from tests.ledger.ledgers import DAY_US, agree_on, day_of, now_us, ulid
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer, redis_server

EVENTS = "convoy_event_queue_total"
EVENT_AGE = "convoy_event_queue_backlog_seconds"
DELIVERIES = "convoy_event_delivery_queue_total"
DELIVERY_AGE = "convoy_event_delivery_queue_backlog_seconds"
ATTEMPTS = "convoy_event_delivery_attempts_total"
INFO = "convoy_project_info"
DOMAIN = {EVENTS, EVENT_AGE, DELIVERIES, DELIVERY_AGE, ATTEMPTS}
# What differs from one moment to the next.
MOVING = {
    EVENT_AGE,
    DELIVERY_AGE,
    "otel_queue_collect_duration_seconds",
    "otel_queue_last_success_timestamp_seconds",
    "otel_queue_snapshot_age_seconds",
    # The push counts its own lane from its first end on.
    "otel_queue_up",
}


class Ledger:
    """Writes to a begun ledger at once."""

    def __init__(self, url: str) -> None:
        link = connect(RedisConfig(url=url))
        self.store, self.upkeep = LedgerStore(link), Upkeep(link)
        self.upkeep.begin()

    def write(self, *records: Record) -> None:
        self.store.write(records, time.monotonic() + 30)


@pytest.fixture
def ledger(redis_url: str) -> Ledger:
    return Ledger(redis_url)


def pipeline(redis_url: str, attributes: Mapping[str, tuple[str, ...]] | None = None, **settings: Any) -> Pipeline:
    queue = QueueConfig(min_interval_seconds=0.0, memory_interval_seconds=0.0)
    shape = {name: settings.pop(name) for name in ("labels", "most_series") if name in settings}
    return Pipeline(
        Config(
            redis=RedisConfig(url=redis_url),
            queue=queue,
            domain=DomainConfig(source="ledger", **shape),
            ledger=LedgerConfig(**settings),
            attributes=attributes or {},
            opentelemetry=load_config({}).opentelemetry,
        )
    )


def scraped(exporter: Pipeline, accept: str = CLASSIC) -> dict[str, dict[Labels, float]]:
    text = exporter.scrape(accept, None).body.decode()
    return parsed(text, openmetrics=accept == OPENMETRICS)


def story(days_ago: int = 0) -> tuple[Record, ...]:
    """A project with two deliveries, one of them in processing, and with three attempts; ids are of that day."""
    now = now_us()
    event, first, second = (ulid(now - days_ago * DAY_US, number) for number in range(3))
    told: dict[str, Any] = {"endpoint": "e1", "event_type": 'so "called"', "source": None}
    return (
        ProjectDescribed("p", now, "Project ü", "o", "Organisation"),
        EventCreated("p", event, now, None),
        DeliveryCreated("p", first, now, **told),
        DeliveryCreated("p", second, now, **told),
        StatusSet("p", first, "processing", now + 1),
        StatusSet("p", second, "success", now + 2),
        AttemptMade("p", new_ulid(), now, "e1", True, "200 OK"),
        AttemptMade("p", new_ulid(), now, "e1", False, None),
        AttemptMade("p", new_ulid(), now, "e1", False, 503),
    )


def delivery(status: str, **other: str) -> Labels:
    told = {
        "project": "p", "project_name": "Project ü", "endpoint": "e1", "event_type": 'so "called"',
        "source": "http", "organisation_id": "o", "organisation_name": "Organisation",
    }  # fmt: skip
    return labels(**{**told, "status": status, **other})


@pytest.mark.parametrize("accept", [CLASSIC, OPENMETRICS])
def test_a_scrape_shows_the_ledger_beside_the_queues(ledger: Ledger, redis_url: str, accept: str) -> None:
    ledger.write(*story())
    found = scraped(pipeline(redis_url), accept)
    assert found[EVENTS] == {labels(project="p", source="http", status="success"): 1}
    assert found[DELIVERIES] == {delivery("processing"): 1, delivery("success"): 1}
    attempt = {"project": "p", "endpoint": "e1"}
    assert found[ATTEMPTS] == {
        labels(**attempt, status="success", http_status_code="200"): 1,
        labels(**attempt, status="failure", http_status_code="none"): 1,
        labels(**attempt, status="failure", http_status_code="503"): 1,
    }
    assert list(found[DELIVERY_AGE]) == [labels(project="p", endpoint="e1", source="http")]
    assert list(found[EVENT_AGE]) == [labels(project="p", source="http")]
    # A third lane, `retention`, may have ended by now.
    assert {lane: found["otel_queue_up"][labels(lane=lane)] for lane in ("queue", "ledger")} == {
        "queue": 1,
        "ledger": 1,
    }
    assert INFO not in found


def test_a_series_of_an_expired_day_is_gone_from_the_next_scrape_and_the_counter_stays(
    ledger: Ledger, redis_url: str
) -> None:
    ledger.write(*story(days_ago=1))
    exporter = pipeline(redis_url)
    counted = scraped(exporter)[ATTEMPTS]
    ledger.write(DayExpired("p", day_of(now_us() - DAY_US)))
    found = scraped(exporter)
    assert found.keys() & DOMAIN == {ATTEMPTS}
    assert found[ATTEMPTS] == counted


def test_a_status_that_no_delivery_has_any_more_has_no_series(ledger: Ledger, redis_url: str) -> None:
    now, name = now_us(), new_ulid()
    exporter = pipeline(redis_url)
    ledger.write(DeliveryCreated("p", name, now, "e1", "t", "s"))
    assert [dict(each)["status"] for each in scraped(exporter)[DELIVERIES]] == ["scheduled"]
    ledger.write(StatusSet("p", name, "retry", now + 1))
    assert [dict(each)["status"] for each in scraped(exporter)[DELIVERIES]] == ["retry"]


def test_a_label_that_nobody_told_is_unknown_and_one_told_as_null_is_not(ledger: Ledger, redis_url: str) -> None:
    now = now_us()
    ledger.write(
        StatusSet("p", new_ulid(), "success", now),
        StatusSet("p", new_ulid(), "retry", now, endpoint=None, event_type=None, source=None),
        EventCreated("p", new_ulid(), now),
    )
    found = scraped(pipeline(redis_url))
    unknown = {"endpoint": "unknown", "event_type": "unknown", "source": "unknown"}
    null = {"endpoint": "", "event_type": "", "source": "http"}
    nameless = {"project_name": "", "organisation_id": "", "organisation_name": ""}
    assert found[DELIVERIES] == {
        delivery("success", **unknown, **nameless): 1,
        delivery("retry", **null, **nameless): 1,
    }
    assert found[EVENTS] == {labels(project="p", source="unknown", status="success"): 1}


def test_lean_labels_leave_names_to_the_project_info(ledger: Ledger, redis_url: str) -> None:
    ledger.write(*story())
    found = scraped(pipeline(redis_url, labels="lean"))
    left_out = {"project_name": "", "organisation_id": "", "organisation_name": "", "event_type": ""}
    assert found[DELIVERIES] == {delivery("processing", **left_out): 1, delivery("success", **left_out): 1}
    assert found[INFO] == {
        labels(project="p", project_name="Project ü", organisation_id="o", organisation_name="Organisation"): 1
    }


def test_a_rename_moves_no_count_and_no_series_of_lean_labels(ledger: Ledger, redis_url: str) -> None:
    ledger.write(*story())
    lean, full = pipeline(redis_url, labels="lean"), pipeline(redis_url)
    before = scraped(lean)[DELIVERIES]
    ledger.write(ProjectDescribed("p", now_us(), "Renamed", "o", "Organisation"))
    assert scraped(lean)[DELIVERIES] == before
    assert scraped(full)[DELIVERIES] == {
        delivery("processing", project_name="Renamed"): 1,
        delivery("success", project_name="Renamed"): 1,
    }


def test_narrowing_by_configuration_takes_an_attribute_from_text_and_points_alike(
    ledger: Ledger, redis_url: str, sink: Sink
) -> None:
    ledger.write(*story())
    narrow = {DELIVERIES: ("project", "status"), ATTEMPTS: ("project",), DELIVERY_AGE: ("project",)}
    exporter = pipeline(redis_url, narrow)
    text, metrics = scraped(exporter), metrics_of(pushed_by(exporter, sink))
    expected = {
        DELIVERIES: {labels(project="p", status="processing"): 1.0, labels(project="p", status="success"): 1.0},
        ATTEMPTS: {labels(project="p"): 3.0},
    }
    for name, series in expected.items():
        assert text[name] == series
        assert values_of(metrics[name]) == series
    assert set(text[DELIVERY_AGE]) == set(points_of(metrics[DELIVERY_AGE])) == {labels(project="p")}


# Pull and push ---------------------------------------------------------------------------------------------------


@pytest.fixture
def sink(monkeypatch: pytest.MonkeyPatch) -> Iterator[Sink]:
    """Where pipelines push to that are made after it."""
    with otlp_sink() as running:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", running.url)
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "http/protobuf")
        yield running


def pushed_by(exporter: Pipeline, sink: Sink) -> Any:
    """The request of its last push."""
    assert exporter.shutdown()
    return sink.received[-1]


def test_what_is_pushed_is_what_is_scraped(ledger: Ledger, redis_url: str, sink: Sink) -> None:
    ledger.write(*story())
    exporter = pipeline(redis_url)
    text = scraped(exporter)
    metrics = metrics_of(pushed_by(exporter, sink))
    del text["target_info"]
    assert set(metrics) == set(text)
    assert text.keys() >= DOMAIN
    for name, metric in metrics.items():
        if name in MOVING:
            assert set(points_of(metric)) >= set(text[name]), name
        else:
            assert values_of(metric) == text[name], name


def test_the_pushed_counter_starts_at_the_ledgers_birth(ledger: Ledger, redis_server: RedisServer, sink: Sink) -> None:
    ledger.write(*story())
    with redis_server.client() as client:
        birth_us = 1_700_000_000_123_456
        agree_on(client, birth_us=birth_us)
    metric = metrics_of(pushed_by(pipeline(redis_server.url), sink))[ATTEMPTS]
    starts = {point.start_time_unix_nano for point in metric.sum.data_points}
    # Seconds as a float are exact to a microsecond.
    assert {round(start / 1000) for start in starts} == {birth_us}


# Unknown is not zero ---------------------------------------------------------------------------------------------


def test_a_ledger_that_was_never_begun_is_unknown_and_not_empty(redis_url: str) -> None:
    found = scraped(pipeline(redis_url))
    assert not found.keys() & DOMAIN
    assert found["otel_queue_up"][labels(lane="ledger")] == 0
    assert found["otel_queue_errors_total"][labels(lane="ledger", reason="no_birth")] == 1


def test_a_begun_ledger_without_records_is_empty_and_well(ledger: Ledger, redis_url: str) -> None:
    found = scraped(pipeline(redis_url))
    assert not found.keys() & DOMAIN
    assert found["otel_queue_up"][labels(lane="ledger")] == 1
    assert labels(lane="ledger", reason="no_birth") not in found.get("otel_queue_errors_total", {})


def test_a_ledger_that_was_lost_leaves_its_families_out_and_counts_why(
    ledger: Ledger, redis_server: RedisServer
) -> None:
    ledger.write(*story())
    exporter = pipeline(redis_server.url, max_staleness_seconds=0.0)
    with redis_server.client() as client:
        client.flushall()
    found = scraped(exporter)
    assert not found.keys() & DOMAIN
    assert found["otel_queue_errors_total"][labels(lane="ledger", reason="no_birth")] == 1


def test_a_ledger_that_cannot_be_read_keeps_its_last_values_for_max_staleness_and_the_queues_go_on(
    redis_url: str,
) -> None:
    with redis_server() as apart:
        Ledger(apart.url).write(*story())
        settings: dict[str, Any] = {"url": apart.url, "timeout_seconds": 2.0}
        patient = pipeline(redis_url, max_staleness_seconds=600.0, **settings)
        strict = pipeline(redis_url, max_staleness_seconds=2.0, **settings)
        assert scraped(patient).keys() >= DOMAIN
        wait_until(lambda: scraped(strict).keys() >= DOMAIN, what="a fresh value is shown")
        apart.kill()

        def without_domain() -> dict[str, dict[Labels, float]]:
            found = scraped(strict)
            return {} if found.keys() & DOMAIN else found

        gone = wait_until(without_domain, what="the stale families disappear")
        assert gone["otel_queue_up"][labels(lane="queue")] == 1
        assert gone["otel_queue_up"][labels(lane="ledger")] == 0
        assert gone["otel_queue_errors_total"][labels(lane="ledger", reason="connection")] >= 1
        kept = scraped(patient)
        assert kept.keys() >= DOMAIN
        assert kept["otel_queue_up"][labels(lane="ledger")] == 0


# The budget of series --------------------------------------------------------------------------------------------


def snapshot_of(deliveries: Sequence[tuple[Told, int]], attempts: Sequence[tuple[str, int]]) -> LedgerSnapshot:
    """One project, whose groups came in this order; all its deliveries are delivered."""
    project = Project("p")
    for number, (told, count) in enumerate(deliveries, start=1):
        project.groups[number] = told
        project.deliveries[number, 6] = count
    project.attempts = {(endpoint, "success", "200"): count for endpoint, count in attempts}
    return LedgerSnapshot(1.0, 1, (project,), {}, 0.0, 1)


def folded(snapshot: LedgerSnapshot, most: int) -> dict[str, dict[tuple[str, ...], float]]:
    exported = ledger_families(snapshot, budget=SeriesBudget(most))
    return {family.name: dict(family.samples) for family in exported.families}


ORDERS: list[Callable[[list[Any]], list[Any]]] = [
    lambda items: items,
    lambda items: items[::-1],
    lambda items: items[7:] + items[:7],
    lambda items: items[::2] + items[1::2],
]


@pytest.mark.parametrize("order", ORDERS)
def test_what_folds_into_other_does_not_depend_on_the_order_in_which_it_came(
    order: Callable[[list[Any]], list[Any]],
) -> None:
    deliveries = [(Told(f"e{number % 10}", f"t{number % 2}", f"s{number % 3}"), number + 1) for number in range(30)]
    attempts = [(f"e{number}", number + 1) for number in range(10)]
    as_told = folded(snapshot_of(deliveries, attempts), 7)
    assert folded(snapshot_of(order(deliveries), order(attempts)), 7) == as_told


def test_the_endpoints_that_sort_first_are_kept_and_the_others_add_up() -> None:
    attempts = [("e3", 30), ("e1", 10), ("e2", 20), ("e4", 40)]
    found = folded(snapshot_of([], attempts), 2)[ATTEMPTS]
    assert found == {
        ("p", "e1", "success", "200"): 10,
        ("p", "e2", "success", "200"): 20,
        ("p", "other", "success", "200"): 70,
    }


def test_no_count_is_lost_by_folding() -> None:
    deliveries = [(Told(f"e{number}", "t", "s"), number + 1) for number in range(30)]
    found = folded(snapshot_of(deliveries, []), 5)[DELIVERIES]
    assert sum(found.values()) == sum(count for _, count in deliveries)


def test_within_the_budget_nothing_folds() -> None:
    deliveries = [(Told(f"e{number}", "t", "s"), 1) for number in range(5)]
    found = folded(snapshot_of(deliveries, []), 5)[DELIVERIES]
    assert {values[2] for values in found} == {f"e{number}" for number in range(5)}


def test_an_endpoint_that_was_shown_keeps_its_place_when_others_come_that_sort_before_it(
    ledger: Ledger, redis_url: str
) -> None:
    def attempts(endpoint: str, count: int) -> list[Record]:
        return [AttemptMade("p", new_ulid(), now_us(), endpoint, True, 200) for _ in range(count)]

    def seen() -> dict[str, float]:
        return {dict(each)["endpoint"]: value for each, value in scraped(exporter)[ATTEMPTS].items()}

    exporter = pipeline(redis_url, most_series=2)
    ledger.write(*attempts("m", 20), *attempts("n", 10))
    assert seen() == {"m": 20, "n": 10}
    ledger.write(*attempts("z", 5))
    assert seen() == {"m": 20, "n": 10, "other": 5}
    ledger.write(*attempts("a", 3), *attempts("m", 1))
    assert seen() == {"m": 21, "n": 10, "other": 8}


def names_of(samples: Mapping[tuple[str, ...], float]) -> dict[str, float]:
    return {values[1]: value for values, value in samples.items()}


def test_a_series_whose_data_is_gone_gives_its_room_to_one_that_was_never_in_other() -> None:
    budget = SeriesBudget(2)

    def shown(**attempts: int) -> dict[str, float]:
        exported = ledger_families(snapshot_of([], list(attempts.items())), budget=budget)
        return names_of(dict(next(family.samples for family in exported.families if family.name == ATTEMPTS)))

    assert shown(a=1, b=2, c=3) == {"a": 1, "b": 2, "other": 3}
    assert shown(b=2, c=4) == {"b": 2, "other": 4}
    assert shown(b=2, c=4, d=5) == {"b": 2, "d": 5, "other": 4}
    assert shown(b=2, d=5) == {"b": 2, "d": 5, "other": 4}


def test_a_fallback_shows_the_endpoints_that_the_source_showed() -> None:
    budget = SeriesBudget(2)
    samples = [(("p", endpoint, "success", "200"), 1.0) for endpoint in ("a", "m", "n")]
    ledger_families(snapshot_of([], [("m", 1), ("n", 1)]), budget=budget)
    [family] = budget.fit([Family(ATTEMPTS, samples, 1.0, "postgres")], lean=False).families
    assert names_of(dict(family.samples)) == {"m": 1, "n": 1, "other": 1}


def test_a_scrape_counts_what_was_folded(ledger: Ledger, redis_url: str) -> None:
    now = now_us()
    ledger.write(*(AttemptMade("p", new_ulid(), now, f"e{number}", True, 200) for number in range(5)))
    found = scraped(pipeline(redis_url, most_series=2))
    assert {dict(each)["endpoint"] for each in found[ATTEMPTS]} == {"e0", "e1", "other"}
    assert found["otel_queue_folded_series"][labels(metric=ATTEMPTS)] == 3
    assert found["otel_queue_folded_series"][labels(metric=DELIVERIES)] == 0
    assert found["otel_queue_series"][labels(metric=ATTEMPTS)] == 3
