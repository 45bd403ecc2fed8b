"""What the pages show for workers runs as it stands there."""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_queue import Recorder, Task, Worker, WriteError
from tests.ledger.ledgers import Ledger
from tests.ledger.oracle import ATTEMPTS
from tests.package.distributions import ROOT
from tests.recorder.reading import of, sums
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer, redis_server

HEADERS = {"oq-project": "p", "oq-endpoint": "E"}


def examples(page: str) -> list[str]:
    """The Python of a page, in its order."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(encoding="utf-8"), re.M | re.S)


@contextmanager
def run(example: str, url: str, monkeypatch: pytest.MonkeyPatch, **theirs: Any) -> Iterator[Mapping[str, Any]]:
    """What the example has named; `theirs` are the names that it says are the application's."""
    monkeypatch.setenv("OTEL_QUEUE_REDIS_URL", url)
    named: dict[str, Any] = dict(theirs)
    exec(example, named)
    try:
        yield named
    finally:
        for thing in named.values():
            if isinstance(thing, Worker):
                thing.shutdown(0.0)


@pytest.fixture
def ledger(redis_server: RedisServer) -> Iterator[Ledger]:
    opened = Ledger(redis_server.url)
    yield opened
    opened.close()


def deliver(task: Task) -> str:
    task.report_attempt(200, attempt_id=f"attempt of {task.id}")
    return "delivered"


def attempts(ledger: Ledger) -> float:
    return sum(ledger.families()[ATTEMPTS].values())


def test_the_worker_of_the_first_page_records_what_its_handler_does(
    redis_server: RedisServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    row = SimpleNamespace(id="d", endpoint_id="E", event_type="t")
    example, _ = examples("workers.md")
    *beginning, end = example.splitlines(keepends=True)
    assert end.startswith("worker.shutdown()")
    with run("".join(beginning), redis_server.url, monkeypatch, row=row, deliver=deliver) as named:
        assert named["handle"](Task("t", id="1", headers=HEADERS)) == "delivered"
        wait_until(lambda: attempts(ledger) == 1, what="readers are told of the attempt")
        exec(end, dict(named))


def test_the_applications_own_provider_is_recorded_to_and_tells_what_the_ledger_refused(
    redis_server: RedisServer, ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = InMemoryMetricReader()
    _, example = examples("workers.md")
    during = """
recorder.attempt_made(project="p", attempt_id="1", succeeded=True)
"""
    with run(example.replace("...", during), redis_server.url, monkeypatch, readers=[reader]) as named:
        assert isinstance(named["provider"], MeterProvider)
        assert isinstance(named["recorder"], Recorder)
        assert attempts(ledger) == 1
        assert named["recorder"].attempt_made(project="p", attempt_id="2", succeeded=True) == "dropped"
        assert sums(reader, "otel_queue_errors_total") == {of(lane="ledger", reason="dropped"): 1}


def test_nothing_is_acknowledged_that_has_not_reached_the_ledger(monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = examples("reliability.md")
    with redis_server(args=["--appendonly", "yes", "--appendfsync", "always"]) as server:
        Ledger(server.url).close()
        with run(example, server.url, monkeypatch, deliver=deliver) as named:
            handle = named["handle"]
            assert handle(Task("t", id="1", headers=HEADERS)) == "delivered"
            server.kill()
            for _ in range(2):  # without a breaker the second task tries as well
                with pytest.raises(WriteError, match="its queue has to deliver it again"):
                    handle(Task("t", id="2", headers=HEADERS))
            server.start()
            assert handle(Task("t", id="2", headers=HEADERS)) == "delivered"
            with server.client() as client:
                assert client.hvals("oq:{p}:attempts") == [b"2"]
