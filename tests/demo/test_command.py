"""`otel-queue demo`: whose settings it takes, and what its page shows while nobody scrapes."""

import functools
import threading
from collections.abc import Mapping
from pathlib import Path

import pytest

from otel_queue import overview
from otel_queue.cli import demo, main
from otel_queue.config import Config, RedisConfig
from otel_queue.history import History
from otel_queue.overview import Overview
from otel_queue.samples import Family
from tests.servers.redis import redis_program

_DEMO = ["demo", "--listen", "127.0.0.1:0"]


@pytest.fixture
def stop(monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """What ends the demo in place of a signal."""
    stop = threading.Event()
    monkeypatch.setattr(demo, "stop_on_signals", lambda: stop)
    return stop


def config_of(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> Config:
    """What the demo would serve."""
    served: list[Config] = []

    def serve(config: Config, *_args: object, **_options: object) -> int:
        served.append(config)
        return 0

    monkeypatch.setattr(demo, "serve", serve)
    assert main([*_DEMO, *arguments]) == 0
    return served[0]


def test_the_demo_has_defaults_of_its_own(monkeypatch: pytest.MonkeyPatch, stop: threading.Event) -> None:
    redis_program()
    config = config_of(monkeypatch)
    assert (config.domain.source, config.queue.memory_interval_seconds) == ("ledger", 5.0)


@pytest.mark.parametrize("place", ["flag", "environment", "file"])
def test_what_the_user_sets_wins_over_the_demos_own_defaults(
    monkeypatch: pytest.MonkeyPatch, stop: threading.Event, tmp_path: Path, place: str, redis_url: str
) -> None:
    arguments: list[str] = []
    if place == "flag":
        arguments = ["--queue-memory-interval-seconds", "300", "--domain-source", "none", "--redis-url", redis_url]
    elif place == "environment":
        monkeypatch.setenv("OTEL_QUEUE_QUEUE_MEMORY_INTERVAL_SECONDS", "300")
        monkeypatch.setenv("OTEL_QUEUE_DOMAIN_SOURCE", "none")
        monkeypatch.setenv("OTEL_QUEUE_REDIS_URL", redis_url)
    else:
        file = tmp_path / "otel-queue.toml"
        file.write_text(
            f'[queue]\nmemory_interval_seconds = 300\n[domain]\nsource = "none"\n[redis]\nurl = "{redis_url}"\n'
        )
        arguments = ["--config", str(file)]
    config = config_of(monkeypatch, *arguments)
    assert (config.queue.memory_interval_seconds, config.domain.source) == (300.0, "none")
    assert config.redis == RedisConfig(url=redis_url)


def test_the_page_has_rates_and_charts_though_nobody_scrapes(
    monkeypatch: pytest.MonkeyPatch, stop: threading.Event
) -> None:
    monkeypatch.setattr(overview, "History", functools.partial(History, step_seconds=0.0))
    charted: list[str] = []

    class Watched(Overview):
        def note(self, families: Mapping[str, Family]) -> None:
            super().note(families)
            found = [each for each in self.seen().queues if each.processed_per_second and len(each.history) > 1]
            charted.extend(each.queue for each in found)
            if found:
                stop.set()

    monkeypatch.setattr("otel_queue.pipeline.Overview", Watched)
    assert main([*_DEMO, "--for", "30"]) == 0
    assert charted
