from typing import Any

from otel_queue.catalog import CATALOG
from otel_queue.shadow.entry import Entry
from otel_queue.shadow.families import shadow_families
from otel_queue.shadow.journal import Journaled
from tests.shadow.sides import DELIVERIES, EVENTS

NOW = 1_000_000.0


def shown(*entries: Entry, metrics: tuple[str, ...] = (EVENTS, DELIVERIES)) -> dict[str, dict[tuple[str, ...], float]]:
    journal = Journaled(NOW, {entry.metric: entry for entry in entries}, {}, {})
    families = shadow_families(journal, metrics, max_age_seconds=100)
    assert {family.time for family in families} <= {NOW}
    for family in families:
        assert all(len(labels) == len(CATALOG[family.name].keys) for labels, _ in family.samples), family.name
    return {family.name.removeprefix("otel_queue_shadow_"): dict(family.samples) for family in families}


def entry(metric: str = EVENTS, **values: Any) -> Entry:
    told: dict[str, Any] = {"comparisons": 9, "last": NOW - 100, "drift": 7.0}
    return Entry(metric, "r", **{**told, **values})


def test_an_entry_is_shown_by_what_its_last_comparison_found() -> None:
    found = shown(entry(missing={"ledger": 2, "postgres": 1}, known={"a": 3}, legacy={"a": 4}, skipped={"lag": 5}))
    assert found == {
        "drift": {(EVENTS,): 7.0},
        "missing_series": {(EVENTS, "ledger"): 2.0, (EVENTS, "postgres"): 1.0},
        "within_tolerance": {(EVENTS,): 1.0},
        "known_differences": {(EVENTS, "ledger", "a"): 3.0, (EVENTS, "legacy", "a"): 4.0},
        "comparisons_total": {(EVENTS,): 9.0},
        "skipped_total": {(EVENTS, "lag"): 5.0},
    }


def test_a_difference_that_stands_is_not_within_tolerance() -> None:
    assert shown(entry(standing=3))["within_tolerance"] == {(EVENTS,): 0.0}


def test_an_old_comparison_is_absent_and_still_one_that_was_made() -> None:
    found = shown(entry(last=NOW - 101, skipped={"lag": 5}), entry(DELIVERIES))
    assert found["comparisons_total"] == {(EVENTS,): 9.0, (DELIVERIES,): 9.0}
    assert found["skipped_total"] == {(EVENTS, "lag"): 5.0}
    assert found["drift"] == {(DELIVERIES,): 7.0}
    assert found["within_tolerance"] == {(DELIVERIES,): 1.0}
    assert (EVENTS, "ledger") not in found["missing_series"]


def test_a_metric_that_was_never_compared_has_no_drift_and_no_verdict() -> None:
    assert shown(entry(comparisons=0, last=None, skipped={"lag": 1})) == {
        "comparisons_total": {(EVENTS,): 0.0},
        "skipped_total": {(EVENTS, "lag"): 1.0},
    }


def test_an_entry_of_a_metric_that_is_no_longer_compared_is_not_shown() -> None:
    assert shown(entry(), metrics=(DELIVERIES,)) == {}
