"""The ways that series leave the process, as a test sees them: ours, and the SDK's own for the same values."""

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric, NumberDataPoint
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.resources import Resource
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_classic

from otel_queue.catalog import CATALOG
from otel_queue.export.instruments import meter_provider
from otel_queue.export.otlp import OtlpPush
from otel_queue.export.points import SeriesPoints
from otel_queue.export.text import TextExposition
from otel_queue.samples import Family

CLASSIC = "text/plain; version=0.0.4"
OPENMETRICS = "application/openmetrics-text; version=1.0.0"
FORMATS = (CLASSIC, OPENMETRICS)
RESOURCE = Resource({"service.name": "tested"})

Labels = frozenset[tuple[str, str]]
Attributes = Mapping[str, Sequence[str]]

# The one family that comes through an instrument in these tests, so that there is something to come beside.
BUILD = Family("otel_queue_build_info", [(("0", "3"), 1.0)], 0.0, "self")


def labels(**told: str) -> Labels:
    return frozenset(told.items())


def own_text(accept: str, *families: Family, attributes: Attributes | None = None) -> str:
    """Our text: the families beside the SDK's reader."""
    text = TextExposition(share_seconds=0.0, aggregated=lambda: families, attributes=attributes)
    _beside(text.reader)
    return text.render(accept)[1].decode()


def stock_text(accept: str, *families: Family) -> str:
    """What the SDK says of observable instruments with these names, kinds and values."""
    text = TextExposition(share_seconds=0.0)
    _observed(text.reader, (BUILD, *families))
    return text.render(accept)[1].decode()


def pushed(*families: Family, attributes: Attributes | None = None) -> ExportMetricsServiceRequest:
    """What a collector is sent: the families beside the SDK's points."""
    with otlp_sink() as sink:
        points = SeriesPoints(attributes or {})
        push = OtlpPush(
            OTLPMetricExporter(endpoint=sink.url),
            interval_seconds=3_600.0,
            collection=nullcontext,
            target="sink",
            complete=lambda data: points.beside(data, families),
        )
        _beside(push.reader)
        push.push()
        assert push.state().errors == {}, push.state().last_error
        [request] = sink.received
        push.shutdown(10.0)
    return request


def metrics_of(request: ExportMetricsServiceRequest) -> dict[str, Metric]:
    """The metrics of a request by name; one that is there twice is an AssertionError."""
    [resource] = request.resource_metrics
    metrics = [metric for scope in resource.scope_metrics for metric in scope.metrics]
    found = {metric.name: metric for metric in metrics}
    assert len(found) == len(metrics)
    return found


def points_of(metric: Metric) -> dict[Labels, NumberDataPoint]:
    """The points of a metric by their attributes."""
    points = getattr(metric, str(metric.WhichOneof("data"))).data_points
    found = {frozenset((item.key, item.value.string_value) for item in point.attributes): point for point in points}
    assert len(found) == len(points)
    return found


def values_of(metric: Metric) -> dict[Labels, float]:
    return {attributes: point.as_double for attributes, point in points_of(metric).items()}


def parsed(text: str, *, openmetrics: bool = False) -> dict[str, dict[Labels, float]]:
    """Series of a text by the name of their sample and their labels."""
    found: dict[str, dict[Labels, float]] = {}
    for family in (parse_openmetrics if openmetrics else parse_classic)(text):
        for sample in family.samples:
            series = found.setdefault(sample.name, {})
            key = frozenset(sample.labels.items())
            assert key not in series, f"{sample.name}{dict(key)} is there twice"
            series[key] = sample.value
    return found


def _beside(reader: MetricReader) -> None:
    meter_provider([CATALOG[BUILD.name]], {BUILD.name: BUILD}.get, [reader], RESOURCE, {})


def _observed(reader: MetricReader, families: Sequence[Family]) -> None:
    provider = MeterProvider([reader], RESOURCE, shutdown_on_exit=False)
    meter = provider.get_meter("stock")
    for family in families:
        row = CATALOG[family.name]

        def callback(_: CallbackOptions, family: Family = family) -> list[Observation]:
            keys = CATALOG[family.name].keys
            return [Observation(value, dict(zip(keys, values, strict=True))) for values, value in family.samples]

        create = meter.create_observable_counter if row.kind == "counter" else meter.create_observable_gauge
        create(row.name, callbacks=[callback], unit=row.unit, description=row.description)


class Sink:
    """An OTLP/HTTP endpoint that keeps what it is sent."""

    def __init__(self) -> None:
        self.received: list[ExportMetricsServiceRequest] = []
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                sink.received.append(ExportMetricsServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/metrics"


@contextmanager
def otlp_sink() -> Iterator[Sink]:
    sink = Sink()
    thread = threading.Thread(target=sink.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield sink
    finally:
        sink.server.shutdown()
        sink.server.server_close()
        thread.join()
