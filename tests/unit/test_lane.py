import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from otel_queue.errors import ReadError
from otel_queue.lane import Collected, Lane
from otel_queue.samples import Family
from otel_queue.selection import Supply
from tests.unit.locks import WatchedLock, waits_for

FAMILY = Family("asynq_queue_size", [(("q",), 1.0)], 0.0, "test")
LONG = 30.0


class Source:
    """Collects when it is let to, and counts how often it was asked."""

    def __init__(self) -> None:
        self.asked = 0
        self.go = threading.Event()
        self.go.set()
        self.error: Exception | None = None

    def __call__(self) -> Collected:
        self.asked += 1
        self.go.wait(LONG)
        if self.error:
            raise self.error
        return Collected([FAMILY], {"wrong_type": 2})


def lane(source: Source, min_interval: float = 0.0, max_staleness: float = LONG) -> Lane:
    return Lane("queue", source, min_interval_seconds=min_interval, max_staleness_seconds=max_staleness)


@contextmanager
def no_more_threads() -> Iterator[None]:
    """As under a limit on them: none can be started."""
    before = threading.stack_size(1 << 62)  # more than there are addresses
    try:
        yield
    finally:
        threading.stack_size(before)


def test_readers_of_one_moment_share_one_collection() -> None:
    source = Source()
    source.go.clear()
    shared = lane(source, min_interval=LONG)
    readers = [threading.Thread(target=shared.refresh, args=(LONG,)) for _ in range(10)]
    for reader in readers:
        reader.start()
    source.go.set()
    for reader in readers:
        reader.join(LONG)
    assert source.asked == 1
    assert shared.families() == {FAMILY.name: FAMILY}


def test_a_reader_waits_no_longer_than_its_budget_and_the_next_one_gets_the_result() -> None:
    source = Source()
    source.go.clear()
    slow = lane(source, min_interval=LONG)
    slow.refresh(0.01)
    assert slow.families() == {}
    assert slow.state().up is None
    source.go.set()
    slow.refresh(LONG)
    assert source.asked == 1
    assert slow.state().up is True


def test_a_failure_is_counted_by_reason_and_keeps_the_last_values_for_a_while() -> None:
    source = Source()
    failing = lane(source)
    failing.refresh(LONG)
    source.error = ReadError("timeout", "no answer")
    failing.refresh(LONG)
    state = failing.state()
    assert (state.up, state.errors, state.last_error) == (False, {"wrong_type": 2, "timeout": 1}, "no answer")
    assert failing.families() == {FAMILY.name: FAMILY}


def test_past_its_limit_a_family_is_absent_not_stale() -> None:
    source = Source()
    failing = lane(source, max_staleness=0.0)
    failing.refresh(LONG)
    assert failing.families() == {}
    assert failing.state().up is True


def test_after_a_failure_the_lane_recovers_by_itself() -> None:
    source = Source()
    source.error = ReadError("connection", "refused")
    lame = lane(source)
    lame.refresh(LONG)
    source.error = None
    lame.refresh(LONG)
    assert lame.state().up is True
    assert lame.families()


def test_a_collection_that_finds_no_thread_has_failed_and_the_next_one_recovers() -> None:
    source = Source()
    starved = lane(source)
    starved.refresh(LONG)
    with no_more_threads():
        for _ in range(2):
            starved.refresh(LONG)
        state = starved.state()
    assert (state.up, state.errors["out_of_threads"], source.asked) == (False, 2, 1)
    assert "can't start new thread; raise the limit on threads" in (state.last_error or "")
    assert starved.families() == {FAMILY.name: FAMILY}
    starved.refresh(LONG)
    assert starved.state().up is True
    assert source.asked == 2


def test_an_unexpected_exception_ends_nothing_and_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.error = ZeroDivisionError("oops")
    broken = lane(source)
    broken.refresh(LONG)
    broken.refresh(LONG)
    assert source.asked == 2
    assert broken.state().errors == {"internal": 2}
    assert "unexpected" in caplog.text


def test_a_turn_for_the_worse_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    source = Source()
    source.error = ReadError("timeout", "no answer")
    failing = lane(source)
    for _ in range(3):
        failing.refresh(LONG)
    assert caplog.text.count("failing") == 1


def test_the_age_counts_from_before_the_reading_and_from_what_the_source_kept() -> None:
    clock = [100.0]

    def takes_seven_seconds() -> Collected:
        clock[0] += 7.0
        return Collected([FAMILY], age_seconds=5.0)

    slow = Lane(
        "queue",
        takes_seven_seconds,
        min_interval_seconds=0.0,
        max_staleness_seconds=LONG,
        now=lambda: 1_000.0,
        monotonic=lambda: clock[0],
    )
    slow.refresh(LONG)
    state = slow.state()
    assert (state.age_seconds, state.duration_seconds, state.last_success) == (12.0, 7.0, 988.0)


CALLS: dict[str, Callable[[Lane], object]] = {
    "refresh": lambda shared: shared.refresh(0.0),
    "wait": lambda shared: shared.wait(0.0),
    "families": Lane.families,
    "supply": Lane.supply,
    "state": Lane.state,
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_no_reader_looks_at_a_lane_while_another_changes_it(call: Callable[[Lane], object]) -> None:
    shared = lane(Source())
    lock = shared._lock = WatchedLock()  # type: ignore[assignment]
    assert waits_for(lock, lambda: call(shared))


def test_a_collection_does_not_end_while_a_reader_looks() -> None:
    source = Source()
    source.go.clear()
    shared = lane(source)
    shared.refresh(0.0)
    lock = shared._lock = WatchedLock()  # type: ignore[assignment]
    running = shared._running
    assert running is not None

    def ends() -> None:
        source.go.set()
        assert running.wait(LONG)

    assert waits_for(lock, ends)


def test_a_supply_is_of_one_collection_whatever_ends_meanwhile() -> None:
    found = [Collected([FAMILY], folded={"first": 1})]
    shared = Lane("ledger", lambda: found[0], min_interval_seconds=0.0, max_staleness_seconds=LONG)
    shared.refresh(LONG)

    def another_ends() -> None:
        lock._released = lambda: None
        found[0] = Collected([], whole=False, folded={"second": 2})
        shared.refresh(LONG)

    lock = shared._lock = WatchedLock(released=another_ends)  # type: ignore[assignment]
    assert shared.supply() == Supply({FAMILY.name: FAMILY}, well=True, folded={"first": 1})
    assert shared.supply() == Supply({}, well=False, folded={"second": 2})
