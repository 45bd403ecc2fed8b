from collections.abc import Mapping

import pytest

from otel_queue.config import MetricConfig
from otel_queue.shadow.entry import Entry, Standings, advance
from otel_queue.shadow.tolerance import Tolerance, tolerance
from tests.shadow.sides import ATTEMPTS, DELIVERIES, EVENT_BACKLOG, EVENTS, compared, series


class Run:
    """Comparisons of one metric, a minute apart; `ledger` stays, the database is what each step says."""

    def __init__(self, metric: str, ledger: Mapping[str, float], rule: Tolerance | None = None) -> None:
        self.metric, self.ledger = metric, ledger
        self.rule = rule or tolerance(metric)
        self.entry: Entry | None = None
        self.remembered: Standings = {}
        self.time = 0.0

    def __call__(self, *databases: Mapping[str, float]) -> Entry:
        for database in databases:
            self.time += 60.0
            found = compared(self.metric, self.ledger, database, self.rule)
            self.entry, self.remembered = advance(self.entry, self.remembered, found, {}, self.rule, self.time)
        assert self.entry is not None
        return self.entry


def test_what_is_beyond_tolerance_once_is_drift_and_still_within() -> None:
    entry = Run(EVENTS, {"S1": 5.0})({"S1": 5.0}, {"S1": 9.0})
    assert (entry.drift, entry.standing, entry.within, entry.within_since) == (4.0, 0, 2, 60.0)


def test_what_is_beyond_tolerance_twice_in_a_row_stands_and_ends_the_run() -> None:
    run = Run(EVENTS, {"S1": 5.0})
    entry = run({"S1": 5.0}, {"S1": 9.0}, {"S1": 9.0})
    assert (entry.standing, entry.within, entry.within_since) == (1, 0, None)
    [worst] = entry.worst
    assert (worst.since, worst.comparisons, worst.stands) == (120.0, 2, True)
    entry = run({"S1": 5.0}, {"S1": 5.0})
    assert (entry.standing, entry.within, entry.within_since, entry.worst) == (0, 2, 240.0, ())
    assert (entry.comparisons, entry.first, entry.last) == (5, 60.0, 300.0)


def test_beyond_tolerance_with_a_look_between_that_was_fine_is_timing() -> None:
    entry = Run(EVENTS, {"S1": 5.0})({"S1": 9.0}, {"S1": 5.0}, {"S1": 9.0})
    assert (entry.standing, entry.within) == (0, 3)


def test_beyond_tolerance_with_a_small_difference_between_is_not_in_a_row() -> None:
    entry = Run(EVENTS, {"S1": 100_000.0})({"S1": 100_020.0}, {"S1": 100_005.0}, {"S1": 100_020.0})
    assert (entry.standing, entry.within) == (0, 3)


def test_another_series_beyond_tolerance_is_not_the_same_one_again() -> None:
    entry = Run(EVENTS, {"S1": 5.0, "S2": 5.0})({"S1": 9.0, "S2": 5.0}, {"S1": 5.0, "S2": 9.0})
    assert entry.standing == 0


@pytest.mark.parametrize(("metric", "patience"), [(EVENTS, 5), (DELIVERIES, 5)])
def test_a_small_difference_that_stays_does_not_hide_behind_the_tolerance(metric: str, patience: int) -> None:
    run = Run(metric, {"S1": 100_000.0})
    for look in range(1, patience + 1):
        entry = run({"S1": 100_001.0})
        assert entry.standing == (look == patience), look


def test_in_flight_a_small_difference_may_stay_longer() -> None:
    run = Run(DELIVERIES, {"status=retry S1": 50.0})
    assert run(*[{"status=retry S1": 52.0}] * 29).standing == 0
    assert run({"status=retry S1": 52.0}).standing == 1


def test_a_small_difference_that_changes_its_sign_is_timing() -> None:
    run = Run(EVENTS, {"S1": 100_000.0})
    assert run(*[{"S1": 100_000.0 + amount} for amount in (1, -1) * 5]).standing == 0


def test_clocks_that_differ_by_less_than_the_tolerance_may_do_so_for_ever() -> None:
    entry = Run(EVENT_BACKLOG, {"S1": 60.0})(*[{"S1": 63.0}] * 100)
    assert (entry.standing, entry.within, entry.drift) == (0, 100, 3.0)


def test_a_series_that_stays_missing_stands_whatever_its_value() -> None:
    run = Run(EVENT_BACKLOG, {})
    assert run({"S1": 0.0}).standing == 0
    entry = run({"S1": 0.0})
    assert (entry.standing, entry.missing, entry.drift) == (1, {"ledger": 1, "postgres": 0}, 0.0)


def test_another_tolerance_begins_another_run() -> None:
    run = Run(EVENTS, {"S1": 5.0})
    assert run({"S1": 5.0}, {"S1": 5.0}).within == 2
    run.rule = tolerance(EVENTS, MetricConfig(absolute=3))
    entry = run({"S1": 5.0})
    assert (entry.within, entry.within_since, entry.comparisons) == (1, 180.0, 3)
    assert run({"S1": 5.0}).within == 2


def test_the_worst_series_are_written_and_all_are_remembered() -> None:
    names = [f"S{number:03}" for number in range(500)]
    run = Run(EVENTS, dict.fromkeys(names, 100_000.0))
    # The smallest difference is the one that stays; the large ones are other series each time.
    for look in range(5):
        off = dict.fromkeys(names[1 + look :: 5], 100009.0)
        entry = run({**run.ledger, **off, names[0]: 100_001.0})
        assert len(entry.worst) <= 50
    assert entry.standing == 1
    assert entry.worst[0].labels == series(EVENTS, names[0])
    assert len(run.remembered) > 50


def test_what_a_metric_may_differ_by_is_configured_for_all_its_series() -> None:
    for metric, own, words in (
        (EVENTS, MetricConfig(absolute=3), "S1"),
        (DELIVERIES, MetricConfig(absolute=3, relative=0), "status=retry S1"),
        (ATTEMPTS, MetricConfig(absolute=3, relative=0), "S1"),
        (EVENT_BACKLOG, MetricConfig(age_seconds=3, absolute=99), "S1"),
    ):
        rule = tolerance(metric, own).rule(series(metric, words))
        assert rule.allows(3.0, 1e6 if metric != EVENTS else 0.0), metric
        assert not rule.allows(3.5, 1e6 if metric != EVENTS else 0.0), metric


def test_a_digest_tells_one_rule_from_another() -> None:
    rules = [tolerance(EVENTS), tolerance(DELIVERIES), tolerance(EVENTS, MetricConfig(absolute=1)),
             tolerance(EVENTS, MetricConfig(relative=1))]  # fmt: skip
    assert len({rule.digest for rule in rules}) == 4
    assert tolerance(EVENTS).digest == tolerance(EVENTS, MetricConfig(age_seconds=9)).digest
