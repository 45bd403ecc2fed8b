"""What OpenTelemetry's own variables do to what an exporter or a worker pushes, as a collector gets it."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality

from otel_queue.config import Config, DomainConfig, LedgerConfig, OtlpConfig, QueueConfig, load_config
from otel_queue.pipeline import Pipeline
from otel_queue.worker import Worker
from tests.asynq_writer import AsynqWriter
from tests.export.test_ledger_lane import Ledger, story
from tests.export.ways_out import Sink, metrics_of, otlp_sink
from tests.servers.redis import redis_server

DELTA = AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA
CUMULATIVE = AggregationTemporality.AGGREGATION_TEMPORALITY_CUMULATIVE
PREFERENCE = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"


@pytest.fixture
def sink() -> Iterator[Sink]:
    with otlp_sink() as running:
        yield running


def config(sink: Sink, redis_url: str = "", **environment: str) -> Config:
    """Pushes to the sink, as the environment says."""
    variables = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": sink.url, "OTEL_METRIC_EXPORT_INTERVAL": "3600000"}
    loaded = load_config({"redis.url": redis_url} if redis_url else {}, variables | environment)
    return replace(loaded, queue=QueueConfig(min_interval_seconds=0.0, memory_interval_seconds=0.0))


def last(sink: Sink) -> dict[str, Any]:
    return metrics_of(sink.received[-1])


def test_what_is_loaded_is_what_is_pushed_with_whatever_the_process_has(
    sink: Sink, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = config(sink, OTEL_EXPORTER_OTLP_PROTOCOL="http/protobuf", OTEL_SERVICE_NAME="loaded")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_PROTOCOL", "grpc")
    monkeypatch.setenv("OTEL_SERVICE_NAME", "process")
    monkeypatch.setenv("OTEL_RESOURCE_ATTRIBUTES", "a=process")
    worker = Worker(loaded)
    assert worker.shutdown()
    resource = sink.received[-1].resource_metrics[0].resource
    told = {item.key: item.value.string_value for item in resource.attributes}
    assert told["service.name"] == "loaded"
    assert "a" not in told


def test_an_exporters_totals_stay_cumulative_whatever_is_preferred(sink: Sink, redis_url: str) -> None:
    writer = AsynqWriter(redis_url)
    writer.pending("default")
    writer.redis.set("asynq:{default}:processed", 1_000)
    exporter = Pipeline(config(sink, redis_url, **{PREFERENCE: "delta"}))
    assert exporter.shutdown()
    sums = [metric.sum for metric in last(sink).values() if metric.HasField("sum")]
    assert {each.aggregation_temporality for each in sums} == {CUMULATIVE}


@pytest.mark.parametrize(
    ("preference", "counter", "histogram"),
    [("delta", DELTA, DELTA), ("LowMemory", DELTA, DELTA), ("cumulative", CUMULATIVE, CUMULATIVE)],
)
def test_a_worker_has_the_temporality_that_is_preferred(
    sink: Sink, preference: str, counter: int, histogram: int
) -> None:
    worker = Worker(config(sink, **{PREFERENCE: preference}))
    worker.recorder.ingest("p")
    worker.recorder.attempt_made(project="p", attempt_id="1", succeeded=True, duration_seconds=0.1)
    assert worker.shutdown()
    metrics = last(sink)
    assert metrics["convoy_ingest_total"].sum.aggregation_temporality == counter
    duration = metrics["convoy_event_delivery_attempt_duration_seconds"].histogram
    assert duration.aggregation_temporality == histogram


def test_a_worker_has_exponential_histograms_where_they_are_asked_for(sink: Sink) -> None:
    variable = {"OTEL_EXPORTER_OTLP_METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram"}
    worker = Worker(config(sink, **variable))
    worker.recorder.attempt_made(project="p", attempt_id="1", succeeded=True, duration_seconds=0.1)
    text = worker.render()[1].decode()
    assert worker.shutdown()
    duration = last(sink)["convoy_event_delivery_attempt_duration_seconds"]
    assert duration.exponential_histogram.data_points[0].count == 1
    # A scrape has the boundaries of the catalog all the same: text has no other histograms.
    assert "convoy_event_delivery_attempt_duration_seconds_bucket{" in text
    assert 'le="0.25"' in text


@pytest.mark.parametrize(
    ("exporters", "pushes"),
    [("prometheus", False), ("none", False), ("otlp", True), (" Prometheus , OTLP ", True), ("", True)],
)
def test_only_the_exporters_that_are_named_push(sink: Sink, redis_url: str, exporters: str, pushes: bool) -> None:
    loaded = config(sink, redis_url, OTEL_METRICS_EXPORTER=exporters)
    exporter, worker = Pipeline(loaded), Worker(loaded)
    assert (exporter.status().push != "off") is pushes
    exporter.shutdown()
    worker.shutdown()
    assert len(sink.received) >= (2 if pushes else 0)
    assert pushes or not sink.received
    # A scrape of the exporter is its job, and a worker's is asked for by an argument.
    assert b"otel_queue_up" in exporter.scrape("", None).body


def with_ledger_that_hangs(loaded: Config, url: str) -> Config:
    return replace(
        loaded,
        domain=DomainConfig(source="ledger"),
        ledger=LedgerConfig(url=url, timeout_seconds=60.0),
        otlp=OtlpConfig(shutdown_timeout_seconds=6.0),
    )


@pytest.mark.parametrize("begun", [False, True], ids=["idle", "with a push under way"])
def test_the_last_push_goes_out_with_what_the_other_lanes_have_while_one_hangs(
    sink: Sink, redis_url: str, begun: bool
) -> None:
    AsynqWriter(redis_url).pending("default", count=2)
    with redis_server() as apart:
        apart.pause()
        exporter = Pipeline(with_ledger_that_hangs(config(sink, redis_url), apart.url))
        if begun:
            exporter.start()
        assert exporter.shutdown()
    assert last(sink)["asynq_queue_size"].gauge.data_points[0].as_double == 2.0


def test_no_point_begins_after_its_time_and_what_has_a_birth_begins_with_it(sink: Sink, redis_url: str) -> None:
    AsynqWriter(redis_url).pending("default")
    ledger = Ledger(redis_url)
    ledger.write(*story())
    loaded = replace(config(sink, redis_url), domain=DomainConfig(source="ledger"))
    birth_us = ledger.upkeep.contract().birth_us
    assert Pipeline(loaded).shutdown()
    metrics = last(sink)
    sums = {name: list(metric.sum.data_points) for name, metric in metrics.items() if metric.HasField("sum")}
    for name, points in sums.items():
        assert all(point.start_time_unix_nano <= point.time_unix_nano for point in points), name
    for name in (
        "convoy_event_delivery_attempts_total",
        "otel_queue_duplicates_suppressed_total",
        "otel_queue_late_records_total",
        "otel_queue_clamped_records_total",
    ):
        assert {round(point.start_time_unix_nano / 1000) for point in sums[name]} == {birth_us}, name
