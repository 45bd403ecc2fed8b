"""OTLP points of series that are aggregated already, as a collector gets them."""

from dataclasses import replace
from time import time_ns
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.metrics.export import MetricsData, ResourceMetrics, ScopeMetrics
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_queue.catalog import CATALOG
from otel_queue.export.points import SeriesPoints
from otel_queue.samples import Family
from otel_queue.version import __version__
from tests.export.ways_out import (
    BUILD,
    CLASSIC,
    RESOURCE,
    labels,
    metrics_of,
    own_text,
    parsed,
    points_of,
    pushed,
    values_of,
)

BIRTH, NOW = 1_700_000_000.25, 1_700_003_600.5
ATTEMPTS = Family(
    "convoy_event_delivery_attempts_total",
    [(("p", "e", "success", "200"), 3.0), (("p", "e", "failure", "none"), 1.0)],
    NOW,
    "ledger",
    BIRTH,
)
EVENTS = Family("convoy_event_queue_total", [(("p", 'so "called" ü', "success"), 7.0)], NOW, "ledger")
DELIVERIES = Family(
    "convoy_event_delivery_queue_total",
    [
        (("p", "P", "e1", "success", "paid", "s1", "o", "O"), 5.0),
        (("p", "P", "e2", "success", "paid", "s2", "o", "O"), 6.0),
        (("p", "P", "e2", "retry", "paid", "s2", "o", "O"), 1.0),
    ],
    NOW,
    "ledger",
)
AGES = Family(
    "convoy_event_delivery_queue_backlog_seconds",
    [(("p", "e1", "s1"), 0.0), (("p", "e1", "s2"), 90.5), (("p", "e2", "s1"), 20.0)],
    NOW,
    "ledger",
)
ALL = (ATTEMPTS, EVENTS, DELIVERIES, AGES)


def test_the_counter_begins_at_the_ledgers_birth_and_is_cumulative() -> None:
    metric = metrics_of(pushed(ATTEMPTS))[ATTEMPTS.name]
    assert metric.sum.is_monotonic
    assert metric.sum.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
    times = {(point.start_time_unix_nano, point.time_unix_nano) for point in metric.sum.data_points}
    assert times == {(round(BIRTH * 1e9), round(NOW * 1e9))}


def test_gauges_carry_the_time_at_which_the_ledger_was_read() -> None:
    metric = metrics_of(pushed(EVENTS))[EVENTS.name]
    assert [point.time_unix_nano for point in metric.gauge.data_points] == [round(NOW * 1e9)]


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_a_metric_has_the_name_unit_and_description_of_its_row(family: Family) -> None:
    row, metric = CATALOG[family.name], metrics_of(pushed(family))[family.name]
    assert (metric.unit, metric.description) == (row.unit, row.description)
    assert metric.WhichOneof("data") == {"gauge": "gauge", "counter": "sum"}[row.kind]


def test_what_the_sdk_collected_arrives_beside_the_series() -> None:
    metrics = metrics_of(pushed(*ALL))
    assert set(metrics) == {BUILD.name, *(family.name for family in ALL)}
    assert values_of(metrics[BUILD.name]) == {labels(version="0", python_version="3"): 1.0}


def test_text_and_points_say_the_same() -> None:
    text, metrics = parsed(own_text(CLASSIC, *ALL)), metrics_of(pushed(*ALL))
    for family in ALL:
        assert values_of(metrics[family.name]) == text[family.name]


def test_a_family_without_samples_sends_no_metric() -> None:
    assert set(metrics_of(pushed(Family(EVENTS.name, [], NOW, "ledger")))) == {BUILD.name}


NARROWED = {
    DELIVERIES.name: ("project", "status"),
    AGES.name: ("project",),
    ATTEMPTS.name: ("project", "status"),
    EVENTS.name: (),
}
SUMMED = {
    DELIVERIES.name: {labels(project="p", status="success"): 11.0, labels(project="p", status="retry"): 1.0},
    AGES.name: {labels(project="p"): 90.5},
    ATTEMPTS.name: {labels(project="p", status="success"): 3.0, labels(project="p", status="failure"): 1.0},
    EVENTS.name: {labels(): 7.0},
}


def test_a_narrowed_list_narrows_the_text_and_the_points_alike() -> None:
    text = parsed(own_text(CLASSIC, *ALL, attributes=NARROWED))
    metrics = metrics_of(pushed(*ALL, attributes=NARROWED))
    for name, expected in SUMMED.items():
        assert text[name] == expected, name
        assert values_of(metrics[name]) == expected, name


@pytest.mark.parametrize("family", ALL, ids=lambda family: family.name)
def test_without_the_narrower_list_the_extra_attributes_appear_on_both_ways(family: Family) -> None:
    keys = set(CATALOG[family.name].keys)
    for series in (parsed(own_text(CLASSIC, family))[family.name], points_of(metrics_of(pushed(family))[family.name])):
        assert {key for labelled in series for key, _ in labelled} == keys


def starts(points: SeriesPoints, *, time: float, start: float | None = None) -> tuple[int, int]:
    """When the attempts of this time begin, and their time, in nanoseconds."""
    collected = MetricsData([ResourceMetrics(RESOURCE, [], "")])
    [resource] = points.beside(collected, [replace(ATTEMPTS, time=time, start=start)]).resource_metrics
    [point, _] = resource.scope_metrics[0].metrics[0].data.data_points
    assert isinstance(point.start_time_unix_nano, int)
    return point.start_time_unix_nano, point.time_unix_nano


def test_a_total_older_than_the_process_begins_no_later_than_its_time_and_keeps_its_beginning() -> None:
    points = SeriesPoints({})
    first = starts(points, time=NOW)
    assert first == (round(NOW * 1e9), round(NOW * 1e9))
    assert starts(points, time=NOW + 60.0) == (first[0], round((NOW + 60.0) * 1e9))


def test_a_total_that_is_told_no_beginning_begins_with_the_process() -> None:
    before, points, after = time_ns(), SeriesPoints({}), time_ns()
    begun, _ = starts(points, time=after / 1e9 + 60.0)
    assert before <= begun <= after


def test_a_birth_ahead_of_the_clock_that_the_ledger_was_read_by_is_that_time() -> None:
    assert starts(SeriesPoints({}), time=NOW, start=NOW + 1.0) == (round(NOW * 1e9), round(NOW * 1e9))


def test_without_series_or_without_a_resource_the_collected_data_goes_out_unchanged() -> None:
    collected, empty = MetricsData([ResourceMetrics(RESOURCE, [], "")]), MetricsData([])
    assert SeriesPoints({}).beside(collected, [Family(EVENTS.name, [], NOW, "ledger")]) is collected
    assert SeriesPoints({}).beside(empty, ALL) is empty


def test_a_series_keeps_its_attributes_object_from_one_push_to_the_next() -> None:
    points = SeriesPoints({})
    collected = MetricsData([ResourceMetrics(RESOURCE, [], "")])

    def attributes(*families: Family) -> list[Any]:
        [resource] = points.beside(collected, families).resource_metrics
        metrics = [metric for scope in resource.scope_metrics for metric in scope.metrics]
        return [point.attributes for metric in metrics for point in metric.data.data_points]

    first, second = attributes(*ALL), attributes(*ALL)
    assert all(before is after for before, after in zip(first, second, strict=True))
    assert attributes(EVENTS) == [{"project": "p", "source": 'so "called" ü', "status": "success"}]


def test_series_join_the_own_scope_of_the_first_resource_and_leave_the_rest_alone() -> None:
    other = ScopeMetrics(InstrumentationScope("other", "1"), [], "schema")
    own = ScopeMetrics(InstrumentationScope("otel_queue", __version__), [], "")
    collected = MetricsData([ResourceMetrics(RESOURCE, [own, other], "s"), ResourceMetrics(RESOURCE, [], "last")])
    first, last = SeriesPoints({}).beside(collected, [EVENTS]).resource_metrics
    assert last is collected.resource_metrics[1]
    assert (first.resource, first.schema_url) == (RESOURCE, "s")
    kept, added = first.scope_metrics
    assert kept is other
    assert (added.scope, added.schema_url) == (own.scope, "")
    assert [metric.name for metric in added.metrics] == [EVENTS.name]
