"""What the readers get: asserted on points read back, not on mocks."""

import subprocess
import sys
from collections.abc import Mapping, Sequence

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider

from otel_queue.catalog import CATALOG, exported_by
from otel_queue.export.instruments import meter_provider, views
from otel_queue.samples import Family
from otel_queue.version import __version__

Points = dict[tuple[tuple[str, str], ...], float]


def collect(family: Family, attributes: Mapping[str, Sequence[str]] | None = None) -> Points:
    reader = InMemoryMetricReader()
    rows = [CATALOG[family.name]]
    lookup = {family.name: family}.get
    provider = meter_provider(rows, lookup, [reader], Resource({}), attributes or {})
    data = reader.get_metrics_data()
    provider.shutdown()
    if data is None:
        return {}
    return {
        tuple(sorted((key, str(value)) for key, value in (point.attributes or {}).items())): point.value  # type: ignore[union-attr]
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def family(name: str, *samples: tuple[tuple[str, ...], float]) -> Family:
    return Family(name, samples, 0.0, "test")


STATES = family("asynq_tasks_enqueued_total", (("a", "pending"), 1.0), (("a", "active"), 2.0), (("b", "pending"), 4.0))


def test_every_sample_is_a_point_with_the_keys_of_its_row() -> None:
    assert collect(STATES) == {
        (("queue", "a"), ("state", "pending")): 1.0,
        (("queue", "a"), ("state", "active")): 2.0,
        (("queue", "b"), ("state", "pending")): 4.0,
    }


def test_the_scope_is_the_package_and_its_version() -> None:
    reader = InMemoryMetricReader()
    meter_provider([CATALOG[STATES.name]], {STATES.name: STATES}.get, [reader], Resource({}), {})
    data = reader.get_metrics_data()
    assert data is not None
    [scope] = data.resource_metrics[0].scope_metrics
    assert (scope.scope.name, scope.scope.version) == ("otel_queue", __version__)
    [metric] = scope.metrics
    assert (metric.name, metric.unit, metric.description) == (STATES.name, "{task}", CATALOG[STATES.name].description)


def test_a_span_that_is_open_at_collection_is_no_exemplar_of_what_was_measured_elsewhere() -> None:
    reader = InMemoryMetricReader()
    meter_provider([CATALOG[STATES.name]], {STATES.name: STATES}.get, [reader], Resource({}), {})
    with TracerProvider(shutdown_on_exit=False).get_tracer("test").start_as_current_span("scrape"):
        data = reader.get_metrics_data()
    assert data is not None
    [metric] = data.resource_metrics[0].scope_metrics[0].metrics
    assert [list(point.exemplars) for point in metric.data.data_points] == [[], [], []]


_READER_OF_A_PROVIDER = """
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.resources import Resource
from otel_queue.export.instruments import meter_provider

class Reader(InMemoryMetricReader):
    def shutdown(self, *_, **__):
        print("a last push")

provider = meter_provider([], {}.get, [Reader()], Resource({}), {})
"""


def test_a_provider_does_not_shut_down_its_readers_when_the_process_ends() -> None:
    assert subprocess.run([sys.executable, "-c", _READER_OF_A_PROVIDER], capture_output=True, check=True).stdout == b""


def test_a_family_without_samples_has_no_points() -> None:
    assert collect(family("asynq_queue_size")) == {}


def test_counts_that_lose_a_key_add_up() -> None:
    assert collect(STATES, {STATES.name: ["queue"]}) == {(("queue", "a"),): 3.0, (("queue", "b"),): 4.0}


def test_ages_that_lose_a_key_keep_the_oldest() -> None:
    ages = family("asynq_queue_overdue_seconds", (("a", "retry"), 5.0), (("a", "scheduled"), 3.0))
    assert collect(ages, {ages.name: ["queue"]}) == {(("queue", "a"),): 5.0}


def test_thousands_of_series_are_not_folded_into_an_overflow_point() -> None:
    many = family("asynq_queue_size", *(((f"q{number}",), 1.0) for number in range(5_000)))
    assert len(collect(many)) == 5_000


def test_every_row_has_a_view_with_its_keys_as_allow_list() -> None:
    by_name = {view._instrument_name: view._attribute_keys for view in views()}
    assert by_name == {row.name: set(row.keys) for row in CATALOG.values()}


@pytest.mark.parametrize("row", CATALOG.values(), ids=lambda row: row.name)
def test_a_rows_unit_does_not_change_its_name_on_the_way_out(row: object) -> None:
    assert row.unit == "" or row.unit.startswith("{") or (row.unit == "s" and row.name.endswith("_seconds"))  # type: ignore[attr-defined]


def test_rows_of_later_versions_are_not_exported_yet() -> None:
    assert {row.since for row in exported_by("inspector", "0.1.0")} == {"0.1"}
    assert exported_by("ledger", "0.1.0") == ()
    assert exported_by("ledger", "0.2.0") != ()
    assert exported_by("derived", "0.3.0") != ()
    assert exported_by("derived", "1.0.0") == ()
