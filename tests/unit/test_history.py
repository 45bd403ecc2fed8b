import pytest

from otel_queue.history import FailureMemory, History
from otel_queue.samples import Family, LabelValues
from tests.unit.clock import Clock

ATTEMPTS = "convoy_event_delivery_attempts_total"


def queue_families(
    time: float, pending: dict[str, float], processed: dict[str, float], failed: dict[str, float] | None = None
) -> dict[str, Family]:
    """The families that one snapshot of the queues has, as far as a history reads them."""
    samples: dict[str, list[tuple[LabelValues, float]]] = {
        "asynq_queue_size": [((queue,), value) for queue, value in pending.items()],
        "asynq_tasks_enqueued_total": [
            *(((queue, "active"), 99.0) for queue in pending),
            *(((queue, "pending"), value) for queue, value in pending.items()),
        ],
        "asynq_tasks_processed_total": [((queue,), value) for queue, value in processed.items()],
        "asynq_tasks_failed_total": [((queue,), value) for queue, value in (failed or {}).items()],
    }
    return {name: Family(name, found, time, "test") for name, found in samples.items()}


def attempts(failed: dict[str, float], *, start: float | None = 1.0) -> Family:
    samples = [(("p", endpoint, "failure", "500"), value) for endpoint, value in failed.items()]
    return Family(ATTEMPTS, [*samples, (("p", "good", "success", "200"), 1000.0)], 0.0, "ledger", start)


def test_a_point_has_the_pending_tasks_and_the_rates_since_the_point_before() -> None:
    history = History(now=lambda: 0.0)
    history.record(queue_families(100.0, {"q": 4.0}, {"q": 50.0}, {"q": 5.0}))
    history.record(queue_families(110.0, {"q": 6.0}, {"q": 70.0}, {"q": 6.0}))

    first, second = history.points("q")

    assert (first.pending, first.processed_per_second, first.failed_per_second) == (4.0, None, None)
    assert (second.pending, second.processed_per_second, second.failed_per_second) == (6.0, 2.0, 0.1)


def test_points_stand_at_times_of_this_process_though_redis_has_another_clock() -> None:
    history = History(now=lambda: 5_000.0)
    history.record(queue_families(100.0, {"q": 1.0}, {}))

    assert [point.time for point in history.points("q")] == [5_000.0]


def test_the_same_snapshot_and_one_that_follows_too_soon_make_no_point() -> None:
    history = History(step_seconds=5.0)
    for time in (100.0, 100.0, 104.9, 105.0, 106.0):
        history.record(queue_families(time, {"q": time}, {}))

    assert [point.pending for point in history.points("q")] == [100.0, 105.0]


def test_what_is_older_than_the_window_is_forgotten_and_a_queue_without_a_point_too() -> None:
    history = History(kept_seconds=30.0)
    history.record(queue_families(100.0, {"gone": 1.0, "q": 1.0}, {}))
    for time in (110.0, 120.0, 130.0, 131.0, 140.0):
        history.record(queue_families(time, {"q": time}, {}))

    assert [point.pending for point in history.points("q")] == [110.0, 120.0, 130.0, 140.0]
    assert history.queues() == ["q"]
    assert history.points("gone") == ()


def test_what_was_not_read_is_unknown_and_not_zero() -> None:
    history = History()
    history.record(queue_families(100.0, {"q": 1.0, "other": 1.0}, {"q": 10.0}))
    history.record(queue_families(110.0, {"other": 1.0}, {}))
    history.record(queue_families(120.0, {"q": 3.0, "other": 1.0}, {"q": 30.0}))

    points = history.points("q")

    assert [point.pending for point in points] == [1.0, None, 3.0]
    assert [point.processed_per_second for point in points] == [None, None, None]
    assert history.rates("q") == (None, None)


def test_a_queue_that_appears_later_has_unknown_points_before() -> None:
    history = History()
    history.record(queue_families(100.0, {"q": 1.0}, {}))
    history.record(queue_families(110.0, {"q": 1.0, "new": 2.0}, {}))

    assert [point.pending for point in history.points("new")] == [None, 2.0]


def test_a_counter_that_began_anew_makes_no_negative_rate() -> None:
    history = History()
    for time, processed in ((100.0, 500.0), (110.0, 3.0), (120.0, 23.0)):
        history.record(queue_families(time, {"q": 0.0}, {"q": processed}))

    assert [point.processed_per_second for point in history.points("q")] == [None, None, 2.0]
    assert history.rates("q")[0] == 2.0


def test_the_rate_is_that_of_the_last_minute() -> None:
    history = History()
    for time, processed in ((0.0, 0.0), (30.0, 9000.0), (60.0, 9030.0), (90.0, 9090.0)):
        history.record(queue_families(time, {"q": 0.0}, {"q": processed}))

    assert history.rates("q")[0] == (9090.0 - 9000.0) / 60.0


def test_the_rate_of_points_that_lie_far_apart_is_that_of_the_last_step() -> None:
    history = History()
    for time, processed in ((0.0, 0.0), (300.0, 9000.0), (600.0, 9300.0)):
        history.record(queue_families(time, {"q": 0.0}, {"q": processed}))

    assert history.rates("q")[0] == 1.0


def test_no_more_queues_are_remembered_than_allowed() -> None:
    history = History(most_queues=2)
    history.record(queue_families(100.0, {"a": 1.0, "b": 1.0, "c": 1.0}, {}))

    assert history.queues() == ["a", "b"]
    assert history.points("c") == ()
    assert history.rates("c") == (None, None)


def test_another_redis_with_a_clock_far_behind_begins_anew() -> None:
    history = History(kept_seconds=30.0)
    history.record(queue_families(1_000_000.0, {"q": 1.0}, {}))
    history.record(queue_families(100.0, {"q": 2.0}, {}))

    assert [point.pending for point in history.points("q")] == [2.0]


def test_without_the_queue_lane_nothing_is_recorded() -> None:
    history = History()
    history.record({})

    assert history.queues() == []


def test_failures_are_told_as_what_came_since_an_older_standing() -> None:
    clock = Clock(1000.0)
    memory = FailureMemory(half_seconds=60.0, now=clock)
    for failed in (10.0, 30.0, 70.0):  # the standing of 10 is dropped when that of 70 is taken
        memory.record(attempts({"e": failed}))
        clock.now += 60.0

    assert memory.lately_seconds() == 120.0
    assert memory.increase(("p", "e"), 100.0) == 70.0
    assert memory.increase(("p", "had none"), 3.0) == 3.0


def test_a_standing_is_taken_only_when_one_is_due() -> None:
    clock = Clock(1000.0)
    memory = FailureMemory(half_seconds=60.0, now=clock)
    for failed in (10.0, 30.0, 70.0):
        memory.record(attempts({"e": failed}))
        clock.now += 20.0

    assert memory.increase(("p", "e"), 100.0) == 90.0


def test_before_the_first_standing_nothing_is_known() -> None:
    memory = FailureMemory(now=lambda: 1000.0)
    assert memory.lately_seconds() is None
    memory.record(None)
    memory.record(attempts({"e": 1.0}))

    assert memory.lately_seconds() is None
    assert memory.increase(("p", "e"), 5.0) is None


def test_another_ledger_is_not_compared_with_the_one_before() -> None:
    clock = Clock(1000.0)
    memory = FailureMemory(half_seconds=60.0, now=clock)
    memory.record(attempts({"e": 10.0}))
    clock.now += 30.0
    memory.record(attempts({"e": 50.0}, start=2.0))
    clock.now += 10.0

    assert memory.lately_seconds() == 10.0
    assert memory.increase(("p", "e"), 51.0) == 1.0


@pytest.mark.parametrize(("endpoint", "known"), [("many", 5.0), ("few", None)])
def test_endpoints_beyond_the_bound_are_unknown_and_those_that_fail_most_are_kept(
    endpoint: str, known: float | None
) -> None:
    clock = Clock(1000.0)
    memory = FailureMemory(most_endpoints=1, now=clock)
    standing = {"few": 1.0, "many": 100.0}
    memory.record(attempts(standing))
    clock.now += 10.0

    assert memory.increase(("p", endpoint), standing[endpoint] + 5.0) == known
