"""Shadow in a running exporter: it compares at every reading, tells what it found, and names what has to differ."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_queue.cli import main
from otel_queue.lifecycle import EventCreated
from otel_queue.ulid import new_ulid
from tests.domain.story import Story
from tests.ledger.ledgers import Ledger
from tests.postgres.gateway import Gateway
from tests.servers.otel_queue import Scrape, ServeProcess, serve

EVENTS = "convoy_event_queue_total"
METRICS = (
    EVENTS,
    "convoy_event_queue_backlog_seconds",
    "convoy_event_delivery_queue_total",
    "convoy_event_delivery_queue_backlog_seconds",
    "convoy_event_delivery_attempts_total",
)
CONFIG = """
[queue]
min_interval_seconds = 0.1
memory_interval_seconds = 0

[domain]
source = "{source}"
shadow = "{shadow}"
gate_seconds = 1
gate_comparisons = 2

[postgres]
interval_seconds = 1
parity = "{parity}"
"""


class Stage:
    """A story that both sides tell alike, and an exporter that compares them."""

    def __init__(self, gateway: Gateway, redis_url: str) -> None:
        self.gateway, self.url = gateway, redis_url
        self.ledger = Ledger(redis_url)
        self.story = Story(gateway, self.ledger, seed=11)
        for _ in range(30):
            self.story.step()

    @property
    def environment(self) -> dict[str, str]:
        return {"OTEL_QUEUE_POSTGRES_DSN": self.gateway.dsn.reveal()}


@pytest.fixture
def stage(own_gateway: Gateway, redis_url: str) -> Iterator[Stage]:
    made = Stage(own_gateway, redis_url)
    yield made
    made.ledger.close()


def compared(found: Scrape, times: int) -> bool:
    made = [found.value("otel_queue_shadow_comparisons_total", metric=metric) for metric in METRICS]
    return all(count is not None and count >= times for count in made)


def until_compared(server: ServeProcess, times: int) -> Scrape:
    return server.scrape_until(lambda found: compared(found, times), what=f"{times} comparisons", within=90)


@pytest.mark.parametrize(
    ("source", "shadow", "parity"),
    [("ledger", "postgres", "corrected"), ("postgres", "ledger", "corrected"), ("postgres", "ledger", "legacy")],
)
def test_sides_that_agree_have_no_drift_and_are_ready_whichever_is_exported(
    stage: Stage,
    source: str,
    shadow: str,
    parity: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    config = CONFIG.format(source=source, shadow=shadow, parity=parity)
    with serve(stage.url, config=config, environment=stage.environment) as server:
        found = until_compared(server, 3)
        for metric in METRICS:
            tolerance = 1.0 if metric.endswith("_seconds") else 0.0
            drift = found.value("otel_queue_shadow_drift", metric=metric)
            assert drift is not None
            assert drift <= tolerance
            assert found.value("otel_queue_shadow_within_tolerance", metric=metric) == 1.0
            assert found.values("otel_queue_shadow_missing_series", metric=metric) == [0.0, 0.0]
        known = found.values("otel_queue_shadow_known_differences", side="legacy")
        assert bool(known) is (parity == "legacy")
        assert found.value("otel_queue_up", lane="shadow") == 1.0
        assert found.value("otel_queue_source_active", metric=EVENTS, source=source) == 1.0

        file = tmp_path / "otel-queue.toml"
        file.write_text(config)
        monkeypatch.setenv("OTEL_QUEUE_POSTGRES_DSN", stage.environment["OTEL_QUEUE_POSTGRES_DSN"])
        assert main(["shadow", "report", "--config", str(file), "--redis-url", stage.url]) == 0
        said = capsys.readouterr().out
        assert said.count(" ready ") == len(METRICS)


def test_a_difference_that_stands_is_told_with_its_series_and_holds_the_cutover_back(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = CONFIG.format(source="ledger", shadow="postgres", parity="corrected")
    with serve(stage.url, config=config, environment=stage.environment) as server:
        until_compared(server, 1)
        stage.ledger.write(EventCreated("P", new_ulid(), time.time_ns() // 1000, "S7"))
        found = server.scrape_until(
            lambda found: found.value("otel_queue_shadow_within_tolerance", metric=EVENTS) == 0.0,
            what="the difference stands",
            within=60,
        )
        assert found.value("otel_queue_shadow_drift", metric=EVENTS) == 1.0
        assert found.value("otel_queue_shadow_missing_series", metric=EVENTS, side="postgres") == 1.0
        assert found.value("otel_queue_shadow_within_tolerance", metric=METRICS[2]) == 1.0
        file = tmp_path / "otel-queue.toml"
        file.write_text(config)
        monkeypatch.setenv("OTEL_QUEUE_POSTGRES_DSN", stage.environment["OTEL_QUEUE_POSTGRES_DSN"])
        assert main(["shadow", "report", "--config", str(file), "--redis-url", stage.url]) == 1
        said = capsys.readouterr().out
        assert "not ready" in said
        assert "source=S7" in said

        # The row arrives after all: the difference is gone, and stands no more.
        stage.gateway.event("late", source="S7")
        server.scrape_until(
            lambda found: found.value("otel_queue_shadow_within_tolerance", metric=EVENTS) == 1.0,
            what="the difference is gone",
            within=60,
        )
