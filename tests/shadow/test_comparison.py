from collections import Counter
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_queue import labels
from otel_queue.catalog import CATALOG
from otel_queue.samples import Family, LabelValues
from otel_queue.shadow.comparison import ANY_SOURCE, RETENTION, SOURCE_OF_GONE_EVENT, Increases, compare
from otel_queue.shadow.tolerance import exact, tolerance
from tests.shadow.sides import (
    ATTEMPTS,
    DELIVERIES,
    DELIVERY_BACKLOG,
    EVENT_BACKLOG,
    EVENTS,
    NOW,
    amounts,
    compared,
    family,
    series,
)

_SOURCES = ["S1", "S2", "http", labels.UNKNOWN]
_SOURCE_AT = CATALOG[DELIVERIES].keys.index("source")

Values = dict[LabelValues, float]


def test_a_point_inside_the_interval_is_no_difference_and_outside_it_is_off_by_the_distance() -> None:
    looks = [{"S1": 5.0}, {"S1": 6.0}, {"S1": 9.0}]
    for point, amount in ((5.0, 0.0), (7.0, 0.0), (9.0, 0.0), (3.0, -2.0), (10.0, 1.0)):
        found = compared(EVENTS, looks, {"S1": point})
        assert found.drift == abs(amount)
        assert amounts(found) == ({"S1": amount} if amount else {})


def test_a_series_that_begins_while_the_ledger_is_read_is_an_interval_from_zero() -> None:
    looks: list[dict[str, float]] = [{}, {"S1": 2.0}, {"S1": 3.0}]
    assert amounts(compared(EVENTS, looks, {})) == {}
    assert amounts(compared(EVENTS, looks, {"S1": 1.0})) == {}
    assert amounts(compared(EVENTS, looks, {"S1": 4.0})) == {"S1": 1.0}


@pytest.mark.parametrize(("status", "beyond"), [("success", True), ("retry", False)])
def test_a_count_that_one_side_lacks_is_missing_there_and_off_by_its_value(status: str, beyond: bool) -> None:
    """In flight a small series comes and goes between two looks, which is not counted."""
    found = compared(DELIVERIES, {f"status={status} S1": 2.0}, {f"status={status} S2": 3.0})
    assert [(item.amount, item.missing, item.beyond) for item in found.differences] == [
        (3.0, "ledger", beyond),
        (-2.0, "postgres", beyond),
    ]
    assert found.missing == dict.fromkeys(["ledger", "postgres"], int(beyond))


def test_a_count_of_zero_and_no_series_are_the_same() -> None:
    assert compared(EVENTS, {}, {"S1": 0.0}).differences == []
    assert compared(EVENTS, {"S1": 0.0}, {}).differences == []


@pytest.mark.parametrize("side", ["ledger", "postgres"])
def test_a_backlog_of_zero_is_a_series_and_misses_where_it_is_not(side: str) -> None:
    both: tuple[dict[str, float], dict[str, float]] = ({}, {"S1": 0.0})
    ledger, database = both if side == "ledger" else both[::-1]
    found = compared(EVENT_BACKLOG, ledger, database)
    assert found.drift == 0.0
    assert found.missing[side] == 1
    assert [(item.missing, item.beyond) for item in found.differences] == [(side, True)]


def test_ages_agree_by_when_the_deliveries_were_created() -> None:
    readings = [family(EVENT_BACKLOG, {"S1": age}, NOW + age - 60) for age in (55.0, 60.0, 61.5)]
    assert compare(tolerance(EVENT_BACKLOG), readings, family(EVENT_BACKLOG, {"S1": 60.0}), NOW).differences == []
    found = compare(tolerance(EVENT_BACKLOG), readings, family(EVENT_BACKLOG, {"S1": 70.0}), NOW)
    assert amounts(found) == {"S1": pytest.approx(10.0)}


def test_an_age_of_zero_is_nothing_in_processing_and_grows_by_no_time() -> None:
    readings = [family(EVENT_BACKLOG, {"S1": 0.0}, NOW + later) for later in (-60.0, 0.0, 1.5)]
    assert compare(tolerance(EVENT_BACKLOG), readings, family(EVENT_BACKLOG, {"S1": 0.0}), NOW).differences == []
    found = compare(tolerance(EVENT_BACKLOG), readings, family(EVENT_BACKLOG, {"S1": 40.0}), NOW)
    assert amounts(found) == {"S1": 40.0}


def test_a_delivery_that_ends_while_the_ledger_is_read_may_be_there_or_not() -> None:
    looks = [{"S1": 60.0}, {"S1": 60.0}, {"S1": 0.0}]
    for age in (0.0, 30.0, 60.0):
        assert compared(EVENT_BACKLOG, looks, {"S1": age}).differences == []
    assert amounts(compared(EVENT_BACKLOG, looks, {"S1": 90.0})) == {"S1": 30.0}


def test_an_age_within_its_tolerance_is_drift_and_not_beyond() -> None:
    [item] = compared(EVENT_BACKLOG, {"S1": 60.0}, {"S1": 64.0}).differences
    assert (item.amount, item.beyond) == (4.0, False)
    [item] = compared(EVENT_BACKLOG, {"S1": 60.0}, {"S1": 66.0}).differences
    assert (item.amount, item.beyond) == (6.0, True)


def test_ages_that_two_clocks_tell_a_little_apart_are_the_same() -> None:
    assert compared(EVENT_BACKLOG, {"S1": 60.0}, {"S1": 60.09}, exact(EVENT_BACKLOG)).differences == []


def test_statuses_in_flight_may_differ_by_more_than_those_that_stay() -> None:
    for status, beyond in (("scheduled", False), ("processing", False), ("retry", False),
                           ("success", True), ("failure", True), ("discarded", True)):  # fmt: skip
        [item] = compared(DELIVERIES, {f"status={status} S1": 100.0}, {f"status={status} S1": 109.0}).differences
        assert item.beyond is beyond, status


def test_behind_a_lagging_replica_the_intervals_are_wider_by_what_moved() -> None:
    looks = [{"S1": 100.0}, {"S1": 105.0}, {"S1": 110.0}]
    assert compared(EVENTS, looks, {"S1": 95.0}).drift == 5.0
    assert compared(EVENTS, looks, {"S1": 95.0}, widened=0.5).drift == 0.0
    assert compared(EVENTS, looks, {"S1": 94.0}, widened=0.5).drift == 1.0


# A source whose event is gone


def test_what_moved_to_the_unknown_source_is_named_and_no_drift() -> None:
    found = compared(DELIVERIES, {"S1": 5.0, "S2": 7.0}, {"S1": 2.0, "S2": 7.0, "unknown": 3.0})
    assert (found.differences, found.known) == ([], {SOURCE_OF_GONE_EVENT: 2})
    assert found.missing == {"ledger": 0, "postgres": 0}


def test_what_does_not_add_up_stays_under_any_source() -> None:
    found = compared(DELIVERIES, {"S1": 5.0}, {"S1": 2.0, "unknown": 4.0})
    assert amounts(found) == {ANY_SOURCE: 1.0}
    assert found.known == {SOURCE_OF_GONE_EVENT: 2}


def test_only_what_the_database_lacks_can_have_moved_to_the_unknown_source() -> None:
    """S2 is more in the database than in the ledger: that is none of a gone event's."""
    found = compared(DELIVERIES, {"S1": 5.0, "S2": 5.0}, {"S1": 2.0, "S2": 8.0, "unknown": 3.0})
    assert amounts(found) == {"S2": 3.0}


def test_an_unknown_source_on_the_ledgers_side_is_a_label_that_no_hook_told_and_is_drift() -> None:
    found = compared(DELIVERIES, {"S1": 2.0, "unknown": 3.0}, {"S1": 5.0})
    assert amounts(found) == {"S1": 3.0, "unknown": -3.0}
    assert found.known == {}


def test_an_unknown_source_of_which_the_database_has_less_took_nothing_in() -> None:
    found = compared(DELIVERIES, {"S1": 5.0, "unknown": 5.0}, {"S1": 2.0, "unknown": 3.0})
    assert amounts(found) == {"S1": -3.0, "unknown": -2.0}
    assert found.known == {}


def test_other_labels_than_the_source_have_to_be_the_same() -> None:
    found = compared(DELIVERIES, {"endpoint=E1 S1": 3.0}, {"endpoint=E2 unknown": 3.0})
    assert amounts(found) == {"S1": -3.0, "endpoint=E2 unknown": 3.0}


def test_an_age_that_moved_to_the_unknown_source_is_named() -> None:
    found = compared(DELIVERY_BACKLOG, {"S1": 90.0}, {"S1": 20.0, "unknown": 90.0})
    assert (found.differences, found.known) == ([], {SOURCE_OF_GONE_EVENT: 2})
    found = compared(DELIVERY_BACKLOG, {"S1": 0.0}, {"unknown": 0.0})
    assert (found.differences, found.known) == ([], {SOURCE_OF_GONE_EVENT: 2})


def test_a_younger_delivery_under_the_unknown_source_is_named_beside_an_older_one() -> None:
    found = compared(DELIVERY_BACKLOG, {"S1": 90.0}, {"S1": 90.0, "unknown": 20.0})
    assert (found.differences, found.known) == ([], {SOURCE_OF_GONE_EVENT: 1})


def test_an_age_that_the_ledger_does_not_have_is_no_gone_events() -> None:
    assert amounts(compared(DELIVERY_BACKLOG, {"S1": 90.0}, {"S1": 90.0, "unknown": 95.0})) == {"unknown": 95.0}
    assert amounts(compared(DELIVERY_BACKLOG, {"S1": 90.0}, {"unknown": 40.0})) == {ANY_SOURCE: -50.0}


# Attempts


def grown(
    before: tuple[dict[str, float], dict[str, float]], after: tuple[dict[str, float], dict[str, float]]
) -> tuple[dict[str, float], dict[str, int]]:
    """What is found after a first look; each is (ledger, database)."""
    increases = Increases()
    for ledger, database in (before, after):
        found = increases.compare(tolerance(ATTEMPTS), [family(ATTEMPTS, ledger)] * 3, family(ATTEMPTS, database))
        if (ledger, database) == before:
            assert found is None, "one look has no increase"
    assert found is not None
    return {"".join(item.labels[3]): item.amount for item in found.differences}, dict(found.known)


def test_attempts_are_compared_by_what_they_grew_and_not_by_what_they_are() -> None:
    code = "http_status_code=200"
    assert grown(({code: 5.0}, {code: 905.0}), ({code: 8.0}, {code: 908.0})) == ({}, {})
    assert grown(({code: 5.0}, {code: 905.0}), ({code: 7.0}, {code: 908.0})) == ({"200": 1.0}, {})
    assert grown(({}, {}), ({code: 3.0}, {})) == ({"200": -3.0}, {})


@pytest.mark.parametrize(("growth", "amount"), [(2.0, -1.0), (3.0, None), (9.0, None), (10.0, 1.0)])
def test_an_increase_lies_between_what_both_intervals_allow(growth: float, amount: float | None) -> None:
    increases, code = Increases(), "http_status_code=200"
    for told, database in (((5.0, 6.0, 7.0), 100.0), ((10.0, 11.0, 14.0), 100.0 + growth)):
        readings = [family(ATTEMPTS, {code: value}) for value in told]
        found = increases.compare(tolerance(ATTEMPTS), readings, family(ATTEMPTS, {code: database}))
    assert found is not None
    assert [item.amount for item in found.differences] == ([] if amount is None else [amount])


def test_attempts_that_retention_took_are_named_and_the_series_begins_anew() -> None:
    code, other = "http_status_code=200", "http_status_code=500"
    found = grown(({code: 5.0, other: 1.0}, {code: 905.0, other: 7.0}), ({code: 8.0, other: 1.0}, {code: 300.0}))
    assert found == ({}, {RETENTION: 2})


def test_an_increase_is_looked_for_from_the_look_before_and_not_from_the_first() -> None:
    increases, code = Increases(), "http_status_code=200"
    drifts = []
    for ledger, database in ((0.0, 0.0), (1.0, 3.0), (4.0, 6.0)):
        found = increases.compare(
            tolerance(ATTEMPTS), [family(ATTEMPTS, {code: ledger})] * 3, family(ATTEMPTS, {code: database})
        )
        drifts.append(found and found.drift)
    assert drifts == [None, 2.0, 0.0]


# Whatever the numbers


def _values(*, ages: bool) -> st.SearchStrategy[Values]:
    metric = DELIVERY_BACKLOG if ages else DELIVERIES
    words = st.builds(
        lambda endpoint, status, source: series(metric, f"endpoint={endpoint} status={status} {source}"),
        st.sampled_from(["E1", "E2"]),
        st.sampled_from(["success", "retry"]),
        st.sampled_from(_SOURCES),
    )
    return st.dictionaries(words, st.integers(1, 1000).map(float), max_size=8)


def _of(metric: str, values: Values) -> Family:
    return Family(metric, list(values.items()), NOW, "ledger")


@pytest.mark.parametrize("metric", [DELIVERIES, DELIVERY_BACKLOG])
@given(data=st.data())
def test_equal_data_have_no_difference(metric: str, data: st.DataObject) -> None:
    found = _of(metric, data.draw(_values(ages=metric == DELIVERY_BACKLOG)))
    comparison = compare(exact(metric), [found] * 3, found, NOW)
    assert (comparison.differences, comparison.known) == ([], {})


@pytest.mark.parametrize("metric", [DELIVERIES, DELIVERY_BACKLOG])
@given(data=st.data())
def test_any_single_changed_value_is_found_with_its_size(metric: str, data: st.DataObject) -> None:
    values = data.draw(_values(ages=metric == DELIVERY_BACKLOG).filter(bool))
    changed = data.draw(st.sampled_from(sorted(values)))
    new = data.draw(st.integers(0, 2000).map(float).filter(lambda value: value != values[changed]))
    database = {**values, changed: new}
    [item] = compare(exact(metric), [_of(metric, values)] * 3, _of(metric, database), NOW).differences
    assert (item.labels, item.amount) == (changed, new - values[changed])


@settings(max_examples=300)
@given(ledger=_values(ages=False), database=_values(ages=False), random=st.randoms(use_true_random=False))
def test_the_order_of_series_makes_no_difference(ledger: Values, database: Values, random: st.DataObject) -> None:
    looks, point = [_of(DELIVERIES, ledger)] * 3, _of(DELIVERIES, database)
    found = compare(tolerance(DELIVERIES), looks, point, NOW)
    shuffled = [replace(side, samples=sorted(side.samples, key=lambda _: random.random())) for side in (*looks, point)]  # type: ignore[attr-defined]
    again = compare(tolerance(DELIVERIES), shuffled[:3], shuffled[3], NOW)
    assert sorted(again.differences) == sorted(found.differences)
    assert again.known == found.known


@settings(max_examples=500)
@given(ledger=_values(ages=False), database=_values(ages=False))
def test_a_gone_event_never_hides_a_change_of_the_sum(ledger: Values, database: Values) -> None:
    found = compare(exact(DELIVERIES), [_of(DELIVERIES, ledger)] * 3, _of(DELIVERIES, database), NOW)
    changed: Counter[LabelValues] = Counter()
    for values, sign in ((database, 1), (ledger, -1)):
        for labelled, value in values.items():
            changed[_group(labelled)] += sign * int(value)
    shown: Counter[LabelValues] = Counter()
    for item in found.differences:
        shown[_group(item.labels)] += int(item.amount)
    assert {group: value for group, value in shown.items() if value} == {
        group: value for group, value in changed.items() if value
    }


def _group(labelled: LabelValues) -> LabelValues:
    return (*labelled[:_SOURCE_AT], *labelled[_SOURCE_AT + 1 :])
