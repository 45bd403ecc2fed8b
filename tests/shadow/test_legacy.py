"""The names of what the real database cannot easily be made to say; the rest is in test_parity."""

from collections.abc import Mapping

import pytest

from otel_queue.samples import Family
from otel_queue.shadow.legacy import name_differences
from tests.shadow.sides import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS, NOW, family


def named(metric: str, legacy: Mapping[str, float], corrected: Mapping[str, float], *more: Family) -> dict[str, int]:
    return name_differences([family(metric, legacy)], [family(metric, corrected), *more])[metric]


def test_equal_numbers_have_no_names() -> None:
    same = {"S1": 3.0, "http": 1.0}
    for metric in (EVENTS, EVENT_BACKLOG, DELIVERIES, DELIVERY_BACKLOG):
        assert named(metric, same, same) == {}


def test_ages_that_differ_by_the_rounding_of_a_float_are_equal() -> None:
    assert named(EVENT_BACKLOG, {"S1": 3.0}, {"S1": 3.0000001}) == {}


@pytest.mark.parametrize(
    ("legacy", "corrected", "names"),
    [
        ({"http": 5}, {"http": 2, "unknown": 3}, {"source_of_gone_event": 2}),
        ({"http": 3}, {"unknown": 3}, {"source_of_gone_event": 2}),
        # More than what the gone events add: one of the others was replayed as well.
        ({"http": 7}, {"http": 2, "unknown": 3}, {"source_of_gone_event": 1, "replayed_event": 1}),
        # Less: of a source called http and of none one was shown.
        ({"http": 3}, {"http": 4, "unknown": 3}, {"source_of_gone_event": 1, "two_sources_one_label": 1}),
        ({}, {"unknown": 3}, {"other": 1}),
        ({"S1": 4}, {"S1": 2}, {"replayed_event": 1}),
        ({"S1": 2}, {"S1": 4}, {"other": 1}),
        ({"S1": 2}, {}, {"other": 1}),
        ({"event_type= S1": 2}, {"event_type= S1": 4}, {"blank_label": 1}),
    ],
)
def test_a_deliverys_difference_is_named_by_what_adds_up(
    legacy: Mapping[str, float], corrected: Mapping[str, float], names: Mapping[str, int]
) -> None:
    assert named(DELIVERIES, legacy, corrected) == names


@pytest.mark.parametrize(
    ("legacy", "corrected", "names"),
    [
        ({"http": 90.0}, {"http": 20.0, "unknown": 90.0}, {"source_of_gone_event": 2}),
        ({"http": 90.0}, {"http": 90.0, "unknown": 20.0}, {"source_of_gone_event": 1}),
        ({"http": 90.0}, {"unknown": 50.0}, {"other": 2}),
        ({}, {"unknown": 0.0}, {"zero_for_known_group": 1}),
        ({}, {"S1": 7.0}, {"other": 1}),
        ({"S1": 0.0}, {"S1": 7.0}, {"other": 1}),
        ({"S1": 7.0}, {}, {"other": 1}),
    ],
)
def test_an_ages_difference_is_named_by_the_oldest(
    legacy: Mapping[str, float], corrected: Mapping[str, float], names: Mapping[str, int]
) -> None:
    assert named(EVENT_BACKLOG, legacy, corrected) == names


def test_of_a_cut_backlog_only_groups_with_a_success_would_have_been_there() -> None:
    legacy = {f"S{number:04}": 1.0 for number in range(1000)}
    corrected = {**legacy, "T1": 0.0, "T2": 0.0, "T3": 5.0}
    deliveries = family(DELIVERIES, {"T1": 1.0, "status=retry T2": 1.0})
    assert named(EVENT_BACKLOG, legacy, corrected, deliveries) == {"cut_at_1000": 2, "zero_for_known_group": 1}


def test_labels_that_were_cleaned_are_named_and_compared_as_they_are_now() -> None:
    assert named(EVENTS, {"a\x01": 2.0, "b": 1.0}, {"a?": 2.0, "b": 1.0}) == {"cleaned_label": 1}


def test_what_moved_since_the_gateways_own_snapshot_is_no_rules() -> None:
    older = family(EVENTS, {"S1": 2.0, "S2": 5.0}, NOW - 60)
    assert name_differences([older], [family(EVENTS, {"S1": 3.0, "S2": 4.0})]) == {
        EVENTS: {"older_reading": 1, "replayed_event": 1}
    }


def test_a_metric_that_the_legacy_side_could_not_read_has_no_names() -> None:
    corrected = [family(EVENTS, {"S1": 1.0}), family(ATTEMPTS, {"S1": 1.0})]
    assert name_differences([], corrected) == {ATTEMPTS: {"never_exported": 1}}
