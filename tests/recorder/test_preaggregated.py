"""Sums that are kept in the process and handed over: the same as adding one by one, whenever they are collected."""

import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_queue.recorder import Recorder
from otel_queue.recorder.preaggregated import PreaggregatedCounter
from otel_queue.worker import views
from tests.recorder.reading import Recording, of, sums

LONG = 30.0
INGESTED = "convoy_ingest_total"

projects = st.sampled_from(["p1", "p2", "p3"])
sources = st.sampled_from([None, "", "http", "S1", "S2", "line\n", "x" * 400])
additions = st.tuples(projects, sources)
collections = st.just("collect")


@given(st.lists(additions | collections, max_size=60))
def test_any_sequence_of_additions_and_collections_exports_the_same_as_one_by_one(
    steps: list[tuple[str, str | None] | str],
) -> None:
    recording = Recording()
    by_hand = InMemoryMetricReader()
    counter = MeterProvider(metric_readers=[by_hand], views=views("process")).get_meter("t").create_counter(INGESTED)
    for step in steps:
        if isinstance(step, str):
            assert recording.sums(INGESTED) == sums(by_hand, INGESTED)
            continue
        project, source = step
        recording.recorder.ingest(project, source)
        exported = {None: "http", "": "http", "line\n": "line?"}.get(source) or (source or "")[:256]
        counter.add(1, {"project": project, "source": exported})
    assert recording.sums(INGESTED) == sums(by_hand, INGESTED)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(-3, 3)), max_size=50), st.integers(1, 4))
def test_sums_survive_any_limit_of_sets(additions: list[tuple[int, int]], most: int) -> None:
    total: Counter[str] = Counter()
    counter = PreaggregatedCounter("m", ("k",), None, most)
    counter.bind(lambda amount, attributes: total.update({attributes["k"]: int(amount)}))
    for value, amount in additions:
        counter.add((str(value),), amount)
        if amount == 3:
            counter.hand_over()
    counter.hand_over()
    assert sum(total.values()) == sum(amount for _, amount in additions)
    assert len(total) <= most + 1


@pytest.fixture
def eager_switching() -> Iterator[None]:
    """Threads take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.usefixtures("eager_switching")
def test_counts_are_exact_under_threads_and_concurrent_collections_of_two_readers() -> None:
    readers = [InMemoryMetricReader(), InMemoryMetricReader()]
    recorder = Recorder(MeterProvider(metric_readers=readers, views=views("process"), shutdown_on_exit=False))
    rounds, workers = 15_000, 4
    stop = threading.Event()
    went_back: list[float] = []

    def record(number: int) -> None:
        for count in range(rounds):
            recorder.ingest("p", f"S{(number + count) % 7}")

    def collect(reader: InMemoryMetricReader) -> None:
        last = 0.0
        while not stop.is_set():
            now = sum(sums(reader, INGESTED).values())
            if now < last:
                went_back.append(now - last)
            last = now

    collectors = [threading.Thread(target=collect, args=(reader,)) for reader in readers]
    recorders = [threading.Thread(target=record, args=(number,)) for number in range(workers)]
    for thread in (*collectors, *recorders):
        thread.start()
    for thread in recorders:
        thread.join(LONG)
    stop.set()
    for thread in collectors:
        thread.join(LONG)
    expected = Counter(f"S{(number + count) % 7}" for number in range(workers) for count in range(rounds))
    for reader in readers:
        assert sums(reader, INGESTED) == {of(project="p", source=source): count for source, count in expected.items()}
    assert went_back == []


class SlowlyHashed(str):
    """Lets other threads in wherever a dictionary asks for its hash: in the middle of an addition, too."""

    def __hash__(self) -> int:
        time.sleep(0)
        return super().__hash__()


@pytest.mark.usefixtures("eager_switching")
def test_an_addition_that_is_interrupted_anywhere_is_counted_once() -> None:
    total: Counter[str] = Counter()
    counter = PreaggregatedCounter("m", ("k",), None)
    counter.bind(lambda amount, attributes: total.update({attributes["k"]: int(amount)}))
    rounds, workers = 500, 4
    recorded = threading.Event()

    def record() -> None:
        for _ in range(rounds):
            counter.add((SlowlyHashed("v"),))

    def collect() -> None:
        while not recorded.is_set():
            counter.hand_over()

    recorders = [threading.Thread(target=record) for _ in range(workers)]
    collector = threading.Thread(target=collect)
    for thread in (collector, *recorders):
        thread.start()
    for thread in recorders:
        thread.join(LONG)
    recorded.set()
    collector.join(LONG)
    counter.hand_over()
    assert total == {"v": rounds * workers}


def test_an_addition_during_a_collection_is_in_the_next_one() -> None:
    recording = Recording()
    recorder = recording.recorder
    recorder.ingest("p")
    adder_of_sdk = recorder._ingested._adder
    assert adder_of_sdk is not None

    def add_and_interfere(amount: float, attributes: object) -> None:
        adder_of_sdk(amount, attributes)  # type: ignore[arg-type]
        recorder._ingested.bind(adder_of_sdk)
        recorder.ingest("p")

    recorder._ingested.bind(add_and_interfere)
    assert recording.sums(INGESTED) == {of(project="p", source="http"): 1}
    assert recording.sums(INGESTED) == {of(project="p", source="http"): 2}
