"""Asserted on what a reader gets: points, OTLP's protobuf and Prometheus text."""

from collections.abc import Iterator, Mapping, Sequence

import pytest
from opentelemetry.exporter.otlp.proto.common.metrics_encoder import encode_metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.metrics.view import View

from otel_queue.catalog import CATALOG
from otel_queue.export.text import TextExposition
from otel_queue.lifecycle import UNTOLD
from otel_queue.recorder import Recorder
from otel_queue.recorder.instruments import NAMES
from otel_queue.worker import views
from tests.recorder.reading import Recording, of

ATTEMPTS = "convoy_event_delivery_attempts_total"
INGESTED = "convoy_ingest_total"
RATE_LIMITED = "convoy_rate_limit_total"


def test_attempts_carry_the_owners_labels() -> None:
    recording = Recording()
    recorder = recording.recorder
    recorder.attempt_made(project="p", attempt_id="1", succeeded=True, endpoint="E", http_status="200 OK")
    recorder.attempt_made(project="p", attempt_id="2", succeeded=True, endpoint="E", http_status=200)
    recorder.attempt_made(project="p", attempt_id="3", succeeded=False, endpoint=None)
    recorder.attempt_made(project="p", attempt_id="4", succeeded=False, endpoint=UNTOLD, http_status="oops")
    assert recording.sums(ATTEMPTS) == {
        of(project="p", endpoint="E", status="success", http_status_code="200"): 2,
        of(project="p", endpoint="", status="failure", http_status_code="none"): 1,
        of(project="p", endpoint="unknown", status="failure", http_status_code="none"): 1,
    }


def test_the_ingest_family_and_the_rate_limiter_are_counted() -> None:
    recording = Recording()
    recorder = recording.recorder
    for _ in range(3):
        recorder.ingest("p")
    recorder.ingest_succeeded("p", "S1")
    recorder.ingest_failed("p", UNTOLD)
    recorder.rate_limited("http-api", "rejected")
    assert recording.sums(INGESTED) == {of(project="p", source="http"): 3}
    assert recording.sums("convoy_ingest_success") == {of(project="p", source="S1"): 1}
    assert recording.sums("convoy_ingest_error") == {of(project="p", source="unknown"): 1}
    assert recording.sums("convoy_rate_limit_total") == {of(bucket="http-api", outcome="rejected"): 1}


def test_end_to_end_latency_keeps_its_buckets_and_covers_an_hour() -> None:
    recording = Recording()
    recording.recorder.end_to_end("p", "E", 90.0)
    (point,) = recording.histograms("convoy_end_to_end_latency").values()
    usual = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
    assert tuple(point.explicit_bounds)[: len(usual)] == usual
    assert point.explicit_bounds[-1] == 3600
    assert point.bucket_counts[list(point.explicit_bounds).index(120)] == 1


@pytest.mark.parametrize("name", sorted(name for name in NAMES if CATALOG[name].kind == "histogram"))
def test_a_histogram_has_the_catalogs_boundaries_also_without_views(name: str) -> None:
    recording = Recording(with_views=[])
    recording.recorder.end_to_end("p", "E", 1)
    recording.recorder.attempt_made(project="p", attempt_id="a", succeeded=True, duration_seconds=1)
    recording.recorder.task_started("q", "t", 1)
    recording.recorder.task_finished("q", "t", "success", 1)
    (point,) = recording.histograms(name).values()
    assert tuple(point.explicit_bounds) == CATALOG[name].boundaries


def test_attempt_durations_are_by_endpoint_and_status() -> None:
    recording = Recording()
    recording.recorder.attempt_made(project="p", attempt_id="a", succeeded=False, endpoint="E", duration_seconds=0.7)
    found = recording.histograms("convoy_event_delivery_attempt_duration_seconds")
    assert {labels: point.sum for labels, point in found.items()} == {
        of(project="p", endpoint="E", status="failure"): 0.7
    }


def test_with_the_ledger_as_store_the_process_counts_attempts_and_exports_none() -> None:
    recording = Recording(store="ledger")
    recording.recorder.attempt_made(project="p", attempt_id="a", succeeded=True)
    recording.recorder.ingest("p")
    assert recording.sums(ATTEMPTS) == {}
    assert recording.sums(INGESTED) != {}
    assert len(recording.writer.records) == 1


def test_build_info_is_there_from_the_first_collection_on() -> None:
    assert set(Recording().sums("otel_queue_build_info").values()) == {1}


def test_label_values_are_cleaned_and_that_is_counted() -> None:
    recording = Recording()
    recording.recorder.ingest("p", "line\nbreak")
    recording.recorder.ingest("p", "x" * 300)
    assert recording.sums(INGESTED) == {of(project="p", source="line?break"): 1, of(project="p", source="x" * 256): 1}
    assert recording.sums("otel_queue_dropped_labels_total") == {of(metric=INGESTED, reason="cleaned"): 2}


def test_a_rate_limiters_names_are_shortened_and_counted_as_labels_are() -> None:
    recording = Recording()
    recording.recorder.rate_limited("b" * 300, "rejected\n")
    assert recording.sums(RATE_LIMITED) == {of(bucket="b" * 256, outcome="rejected?"): 1}
    assert recording.sums("otel_queue_dropped_labels_total") == {of(metric=RATE_LIMITED, reason="cleaned"): 2}


def test_sets_of_labels_past_the_limit_share_one_and_nothing_is_lost() -> None:
    recording = Recording(most_label_sets=10)
    for number in range(25):
        recording.recorder.ingest("p", f"s{number}")
    first = recording.sums(INGESTED)
    for number in range(25, 30):
        recording.recorder.ingest("p", f"s{number}")
    second = recording.sums(INGESTED)
    assert (sum(first.values()), sum(second.values())) == (25, 30)
    assert len(second) == 11
    assert second[of(project="other", source="other")] == 20
    assert recording.sums("otel_queue_dropped_labels_total") == {of(metric=INGESTED, reason="limit"): 40}


def test_every_metric_of_a_worker_has_a_view_with_its_rows_keys() -> None:
    by_name = {view._instrument_name: view._attribute_keys for view in views("process")}
    assert by_name == {name: set(CATALOG[name].keys) for name in NAMES}


def test_every_worker_row_of_the_catalog_has_an_instrument() -> None:
    assert {row.name for row in CATALOG.values() if row.owner == "worker"} <= NAMES


# The View proof: what a View allows is what every way out shows.


class Ways:
    """One recorder, read by both ways out."""

    def __init__(self, chosen: Sequence[View]) -> None:
        self.text = TextExposition(share_seconds=0)
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(
            metric_readers=[self.text.reader, self.reader], views=chosen, shutdown_on_exit=False
        )
        recorder = Recorder(self.provider)
        for source in ("S1", "S2", "S2"):
            recorder.ingest("p", source)

    def lines(self) -> set[str]:
        body = self.text.render("")[1].decode()
        return {line for line in body.splitlines() if line.startswith(INGESTED)}

    def otlp(self) -> set[tuple[frozenset[tuple[str, str]], float]]:
        return set(self._otlp())

    def _otlp(self) -> Iterator[tuple[frozenset[tuple[str, str]], float]]:
        data = self.reader.get_metrics_data()
        assert data is not None
        for metric in encode_metrics(data).resource_metrics[0].scope_metrics[0].metrics:
            if metric.name == INGESTED:
                for point in metric.sum.data_points:
                    pairs = frozenset((pair.key, pair.value.string_value) for pair in point.attributes)
                    yield pairs, point.as_int or point.as_double


def without(name: str, chosen: Sequence[View]) -> list[View]:
    return [view for view in chosen if view._instrument_name != name]


NARROW: Mapping[str, Sequence[str]] = {INGESTED: ["project"]}


def test_narrowing_an_allow_list_takes_the_attribute_out_of_text_and_otlp() -> None:
    ways = Ways(views("process", NARROW))
    assert ways.lines() == {f'{INGESTED}{{project="p"}} 3.0'}
    assert ways.otlp() == {(of(project="p"), 3)}


def test_removing_the_view_makes_the_attribute_appear_in_text_and_otlp() -> None:
    ways = Ways(without(INGESTED, views("process", NARROW)))
    assert ways.lines() == {
        f'{INGESTED}{{project="p",source="S1"}} 1.0',
        f'{INGESTED}{{project="p",source="S2"}} 2.0',
    }
    assert ways.otlp() == {(of(project="p", source="S1"), 1), (of(project="p", source="S2"), 2)}


def test_removing_the_drop_view_lets_the_process_export_attempts() -> None:
    recording = Recording(with_views=without(ATTEMPTS, views("ledger")))
    recording.recorder.attempt_made(project="p", attempt_id="a", succeeded=True)
    assert sum(recording.sums(ATTEMPTS).values()) == 1
