"""A child may be forked at any moment: it works, and what its parent counted is its parent's."""

import os
import threading
from collections.abc import Iterator

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from prometheus_client.parser import text_string_to_metric_families

from otel_queue.config import Config, RedisConfig
from otel_queue.worker import Worker, ledger_writer
from tests.recorder.children import LONG, in_child
from tests.recorder.reading import of, sums
from tests.servers.redis import RedisServer

INGESTED = "convoy_ingest_total"


@pytest.fixture
def worker() -> Iterator[Worker]:
    worker = Worker(readers=lambda: [InMemoryMetricReader()])
    yield worker
    worker.shutdown(0)


def reader_of(worker: Worker) -> InMemoryMetricReader:
    (reader,) = worker.readers
    assert isinstance(reader, InMemoryMetricReader)
    return reader


def ingested(worker: Worker) -> dict[str, float]:
    """By project, from the text that the worker serves."""
    body = worker.render()[1].decode()
    return {
        sample.labels["project"]: sample.value
        for family in text_string_to_metric_families(body)
        for sample in family.samples
        if sample.name == INGESTED
    }


def record_as_child(worker: Worker) -> str:
    for _ in range(3):
        worker.recorder.ingest("child")
    worker.recorder.end_to_end("child", "E", 1.0)
    assert ingested(worker) == {"child": 3}, ingested(worker)
    assert sums(reader_of(worker), INGESTED) == {of(project="child", source="http"): 3}
    return "fine"


def test_a_child_begins_with_none_of_its_parents_counts(worker: Worker) -> None:
    worker.recorder.ingest("handed over")
    assert ingested(worker) == {"handed over": 1}
    worker.recorder.ingest("pending")
    assert in_child(lambda: record_as_child(worker)) == "fine"
    assert sums(reader_of(worker), INGESTED) == {
        of(project="handed over", source="http"): 1,
        of(project="pending", source="http"): 1,
    }


def test_a_child_forked_during_a_collection_works(worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    instruments = worker.recorder._instruments
    hand_over, parent = instruments.hand_over, os.getpid()
    collecting, go_on = threading.Event(), threading.Event()

    def hand_over_slowly() -> None:
        if os.getpid() == parent:
            collecting.set()
            assert go_on.wait(LONG)
        hand_over()

    monkeypatch.setattr(instruments, "hand_over", hand_over_slowly)
    thread = threading.Thread(target=worker.render)
    thread.start()
    assert collecting.wait(LONG)
    assert in_child(lambda: record_as_child(worker)) == "fine"
    go_on.set()
    thread.join(LONG)


def test_a_child_forked_while_a_thread_counts_works(worker: Worker) -> None:
    counting, go_on = threading.Event(), threading.Event()

    def count() -> None:
        with worker.recorder._ingested._lock:
            counting.set()
            assert go_on.wait(LONG)

    thread = threading.Thread(target=count)
    thread.start()
    assert counting.wait(LONG)
    assert in_child(lambda: record_as_child(worker)) == "fine"
    go_on.set()
    thread.join(LONG)


def test_children_forked_under_load_work_and_the_parents_counts_stay_exact(worker: Worker) -> None:
    stop = threading.Event()
    recorded = [0, 0]

    def record(number: int) -> None:
        while not stop.is_set():
            worker.recorder.ingest("parent")
            worker.recorder.end_to_end("parent", "E", 1.0)
            recorded[number] += 1

    def collect() -> None:
        while not stop.is_set():
            ingested(worker)

    threads = [threading.Thread(target=record, args=(number,)) for number in range(2)]
    threads.append(threading.Thread(target=collect))
    for thread in threads:
        thread.start()
    try:
        said = [in_child(lambda: record_as_child(worker)) for _ in range(15)]
    finally:
        stop.set()
        for thread in threads:
            thread.join(LONG)
    assert said == ["fine"] * 15
    assert sums(reader_of(worker), INGESTED) == {of(project="parent", source="http"): sum(recorded)}


def test_a_grandchild_works_too(worker: Worker) -> None:
    assert in_child(lambda: in_child(lambda: record_as_child(worker))) == "fine"


def test_a_child_of_a_worker_that_was_shut_down_starts_nothing() -> None:
    made = []
    worker = Worker(readers=lambda: made.append("reader") or ())  # type: ignore[func-returns-value]
    assert in_child(lambda: str(len(made))) == "2"
    worker.shutdown(0)
    assert in_child(lambda: str(len(made))) == "1"


def test_parent_and_children_write_every_record_to_the_ledger_once(redis_server: RedisServer) -> None:
    config = Config(redis=RedisConfig(url=redis_server.url))
    worker = Worker(config, ledger=lambda: ledger_writer(config))
    stop = threading.Event()
    recorded = 0

    def record() -> None:
        nonlocal recorded
        while not stop.wait(0.0005):
            worker.recorder.attempt_made(project="p", attempt_id=f"parent-{recorded}", succeeded=True)
            recorded += 1

    def record_in_child(number: int) -> str:
        for attempt in range(50):
            worker.recorder.attempt_made(project="p", attempt_id=f"{number}-{attempt}", succeeded=False)
        return str(worker.shutdown(LONG))

    thread = threading.Thread(target=record)
    thread.start()
    try:
        said = [in_child(lambda number=number: record_in_child(number)) for number in range(5)]  # type: ignore[misc]
    finally:
        stop.set()
        thread.join(LONG)
    assert said == ["True"] * 5
    assert worker.shutdown(LONG)
    with redis_server.client() as client:
        found = {field.split(b"\0")[1]: int(count) for field, count in client.hgetall("oq:{p}:attempts").items()}
    assert found == {b"success": recorded, b"failure": 250}
