from typing import Any

from otel_queue.config import Config, MetricConfig, PostgresConfig
from otel_queue.shadow.entry import Entry, Standing
from otel_queue.shadow.tolerance import tolerance
from otel_queue.shadow.verdict import Gate, duration, gate_of, reasons_not_ready
from tests.shadow.sides import EVENTS, series

NOW = 1_800_000_000.0
HOUR = 3600.0
GATE = Gate(seconds=24 * HOUR, comparisons=300, max_age_seconds=480)
RULE = tolerance(EVENTS)


def why(entry: Entry | None) -> list[str]:
    return reasons_not_ready(entry, RULE, GATE, NOW)


def entry(**values: Any) -> Entry:
    """Ready, but for what the test says."""
    told: dict[str, Any] = {"comparisons": 400, "first": NOW - 50 * HOUR, "last": NOW - 30, "within": 300,
                            "within_since": NOW - 30 - 24 * HOUR}  # fmt: skip
    return Entry(EVENTS, RULE.digest, **{**told, **values})


def standing(since: float, missing: Any = "", *, stands: bool = True) -> Standing:
    return Standing(series(EVENTS, "S1"), 1, 1, 2, 1, missing, since, 2, 2, stands)


def test_within_tolerance_for_long_enough_and_often_enough_is_ready() -> None:
    assert why(entry()) == []
    assert why(entry(drift=5.0, skipped={"lagging_replica": 7})) == []


def test_never_compared_is_not_ready_and_says_what_was_in_the_way() -> None:
    assert why(None) == ["never compared"]
    skipped = {"lagging_replica": 12, "first_look": 1}
    assert why(Entry(EVENTS, RULE.digest, skipped=skipped)) == [
        "never compared (skipped: lagging_replica 12, first_look 1)"
    ]


def test_too_short_and_too_few_are_two_reasons() -> None:
    assert why(entry(within=120, within_since=NOW - 30 - 3 * HOUR)) == [
        "within tolerance only for 3 h of 24 h",
        "within tolerance in only 120 of 300 comparisons",
    ]
    assert why(entry(within=299)) == ["within tolerance in only 299 of 300 comparisons"]
    assert why(entry(within_since=NOW - 29 - 24 * HOUR)) == ["within tolerance only for 23 h of 24 h"]


def test_a_last_comparison_too_long_ago_says_nothing_of_now() -> None:
    long = NOW - 40 * HOUR
    assert why(entry(last=NOW - 1200, within_since=long)) == ["last comparison 20 min ago"]
    assert why(entry(last=NOW - 480, within_since=long)) == []


def test_a_reading_that_takes_as_long_as_its_statements_may_is_not_missed() -> None:
    """Two intervals, and a reading whose statements are slow: late, and yet all as configured."""
    config = Config(postgres=PostgresConfig(interval_seconds=60, statement_timeout_seconds=30))
    late = entry(last=NOW - 2 * 60 - 5 * 30, within_since=NOW - 40 * HOUR)
    assert reasons_not_ready(late, RULE, gate_of(config), NOW) == []
    assert reasons_not_ready(entry(last=NOW - 400), RULE, gate_of(config), NOW) != []


def test_a_standing_difference_says_since_when_and_what_is_missing() -> None:
    timing = standing(NOW - 7200, "postgres", stands=False)
    worst = (standing(NOW - 60), standing(NOW - 3600, "ledger"), timing)
    assert why(entry(standing=2, within=0, within_since=None, worst=worst, missing={"ledger": 1, "postgres": 5})) == [
        "standing difference of 2 series since 2027-01-15T07:00:00Z",
        "1 series missing in ledger",
    ]


def test_what_was_compared_under_another_tolerance_does_not_count() -> None:
    other = tolerance(EVENTS, MetricConfig(absolute=9))
    assert reasons_not_ready(entry(), other, GATE, NOW) == ["not compared since its tolerance was changed"]


def test_durations_are_in_a_unit_that_says_something() -> None:
    seconds = (-1, 0, 59.9, 119, 120, 7199, 7200, 86_400, 172_799, 172_800)
    assert [duration(each) for each in seconds] == [
        "0 s", "0 s", "59 s", "119 s", "2 min", "119 min", "2 h", "24 h", "47 h", "2 d",
    ]  # fmt: skip
