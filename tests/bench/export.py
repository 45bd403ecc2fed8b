"""Getting 50,000 series out that are aggregated already: our two ways beside the SDK's own, in one run.

The stock side has its limits raised, so that it emits everything. Before either is timed, and after, both must give the
same series with the same values.
"""

import statistics
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.prometheus import PrometheusMetricReader
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource
from prometheus_client import CollectorRegistry, generate_latest

from otel_queue.catalog import CATALOG
from otel_queue.export.instruments import meter_provider
from otel_queue.export.otlp import OtlpPush
from otel_queue.export.points import SeriesPoints
from otel_queue.export.text import TextExposition
from otel_queue.samples import Family, LabelValues
from tests.bench.agreement import agree
from tests.bench.result import Result

SCRAPE_BUDGET = 1 / 10
PUSH_BUDGET = 0.7
DELIVERIES = CATALOG["convoy_event_delivery_queue_total"]
AGES = CATALOG["convoy_event_delivery_queue_backlog_seconds"]
BUILD = CATALOG["otel_queue_build_info"]
STATUSES = ("scheduled", "processing", "retry", "failure", "success")
PROJECTS, ENDPOINTS = 20, 500
SERIES = PROJECTS * ENDPOINTS * len(STATUSES)
STOCK_ROUNDS, ROUNDS, PUSH_ROUNDS = 3, 9, 4
RESOURCE = Resource({"service.name": "bench"})


class Domain:
    """50,000 series of deliveries with eight labels, and the age of every endpoint's backlog, as the ledger's lane
    would have them: lists and tuples made anew, around texts that stay."""

    def __init__(self) -> None:
        self._labels: list[LabelValues] = [
            (f"01HPROJECT{project:016d}", f"Project {project}", f"01HENDPOINT{endpoint:015d}", status,
             f"invoice.{endpoint % 7}", f"01HSOURCE{endpoint % 3:017d}", f"01HORG{project % 5:020d}", "Organisation")
            for project in range(PROJECTS)
            for endpoint in range(ENDPOINTS)
            for status in STATUSES
        ]  # fmt: skip
        self._values = [float(number % 5_000) for number in range(SERIES)]
        self._turn = 0
        self.families: dict[str, Family] = {}
        self.change()

    def change(self) -> None:
        """Lets 1 % of the values and all ages be others."""
        self._turn += 1
        for index in range(self._turn % 100, SERIES, 100):
            self._values[index] += 1
        deliveries = [((*labels,), value) for labels, value in zip(self._labels, self._values, strict=True)]
        every_endpoint = self._labels[:: len(STATUSES)]
        ages = [
            ((labels[0], labels[2], labels[5]), index % 600 + self._turn * 1.37)
            for index, labels in enumerate(every_endpoint)
        ]
        self.families = {
            DELIVERIES.name: Family(DELIVERIES.name, deliveries, time.time(), "ledger"),
            AGES.name: Family(AGES.name, ages, time.time(), "ledger"),
            BUILD.name: Family(BUILD.name, [(("0", "3"), 1.0)], time.time(), "self"),
        }

    def aggregated(self) -> Iterable[Family]:
        """What goes beside the instruments."""
        return (self.families[DELIVERIES.name], self.families[AGES.name])


def scrape(bench: str) -> Iterator[Result]:
    """A scrape in the classic text format; every line of the two pages is compared."""
    domain = Domain()
    registry = CollectorRegistry()
    stock = stock_provider(domain, PrometheusMetricReader(scope_info_enabled=False, registry=registry))
    text = TextExposition(share_seconds=0.0, aggregated=domain.aggregated)
    ours = own_provider(domain, text.reader)
    cold = _seconds(lambda: text.render(""))
    mine = text.render("")[1]
    agree(lines(mine), lines(generate_latest(registry)))
    stock_seconds, our_seconds = [], []
    for _ in range(STOCK_ROUNDS):
        domain.change()
        stock_seconds.append(_seconds(lambda: generate_latest(registry)))
        for _ in range(ROUNDS // STOCK_ROUNDS):
            domain.change()
            our_seconds.append(_seconds(lambda: text.render("")))
    agree(lines(text.render("")[1]), lines(generate_latest(registry)))
    yield _result(bench, our_seconds, stock_seconds, SCRAPE_BUDGET, {"cold_ms": cold * 1e3, "bytes": len(mine)})
    ours.shutdown()
    stock.shutdown()


def push(bench: str) -> Iterator[Result]:
    """A push by OTLP over HTTP, uncompressed, up to the answer of a collector that only takes the bytes.

    Everything in the two bodies but times is compared.
    """
    domain = Domain()
    with sink() as there:
        reader = PeriodicExportingMetricReader(_exporter(there), export_interval_millis=float("inf"))
        stock = stock_provider(domain, reader)
        points = SeriesPoints({})
        pusher = OtlpPush(
            _exporter(there),
            interval_seconds=3_600,
            collection=nullcontext,
            target="sink",
            complete=lambda data: points.beside(data, domain.aggregated()),
        )
        own_provider(domain, pusher.reader)
        reader.collect()
        theirs = decoded(there.last)
        cold = _seconds(pusher.push)
        size = len(there.last)
        agree(decoded(there.last), theirs)
        stock_seconds, our_seconds = [], []
        for _ in range(PUSH_ROUNDS):
            domain.change()
            stock_seconds.append(_seconds(reader.collect))
            domain.change()
            our_seconds.append(_seconds(pusher.push))
        assert pusher.state().errors == {}
        ours = decoded(there.last)
        reader.collect()
        agree(ours, decoded(there.last))
        yield _result(bench, our_seconds, stock_seconds, PUSH_BUDGET, {"cold_ms": cold * 1e3, "bytes": size})
        pusher.shutdown(30)
        stock.shutdown()


def _result(bench: str, ours: list[float], stock: list[float], budget: float, detail: dict[str, Any]) -> Result:
    mine, theirs = statistics.median(ours), statistics.median(stock)
    detail = {"series": SERIES, "ages": PROJECTS * ENDPOINTS, "ms": mine * 1e3, "ms_stock": theirs * 1e3, **detail}
    return Result(bench, mine / theirs, "ratio", budget, detail)


def own_provider(domain: Domain, reader: MetricReader) -> MeterProvider:
    """Ours, with the one instrument that is always there."""
    return meter_provider([BUILD], lambda name: domain.families[name], [reader], RESOURCE, {})


def stock_provider(domain: Domain, reader: MetricReader) -> MeterProvider:
    """The SDK alone: an observable gauge per metric. Its attributes are kept, for they do not change."""
    rows = (BUILD, DELIVERIES, AGES)
    views = [View(instrument_name=row.name, aggregation_cardinality_limit=10 * SERIES) for row in rows]
    provider = MeterProvider([reader], RESOURCE, views=views, shutdown_on_exit=False)
    meter = provider.get_meter("otel_queue")

    def observe(name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        keys = CATALOG[name].keys
        known = {values: dict(zip(keys, values, strict=True)) for values, _ in domain.families[name].samples}
        return lambda _: [Observation(value, known[values]) for values, value in domain.families[name].samples]

    for row in rows:
        meter.create_observable_gauge(
            row.name, callbacks=[observe(row.name)], unit=row.unit, description=row.description
        )
    return provider


class Sink:
    """Keeps the last body it was sent."""

    def __init__(self) -> None:
        self.last = b""
        sink = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sink.last = self.rfile.read(int(self.headers["Content-Length"]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *_: Any) -> None: ...

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1/metrics"


@contextmanager
def sink() -> Iterator[Sink]:
    """A collector on loopback that only takes the bytes."""
    running = Sink()
    thread = threading.Thread(target=running.server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield running
    finally:
        running.server.shutdown()
        running.server.server_close()
        thread.join()


def _exporter(there: Sink) -> OTLPMetricExporter:
    return OTLPMetricExporter(endpoint=there.url, timeout=60)


def lines(page: bytes) -> dict[bytes, bytes]:
    """What stands before the last space of each line, and the value behind it."""
    parted = [line.rpartition(b" ") for line in page.splitlines()]
    found = {before: value for before, _, value in parted}
    assert len(found) == len(parted), "a line stands twice on the page"
    return found


def decoded(body: bytes) -> dict[tuple[str, ...], float]:
    """The value of each point by its metric's name, description, unit and kind and its own attributes; no times."""
    found: dict[tuple[str, ...], float] = {}
    points = 0
    for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
        for scope in resource.scope_metrics:
            for metric in scope.metrics:
                kind = str(metric.WhichOneof("data"))
                for point in getattr(metric, kind).data_points:
                    attributes = sorted(f"{item.key}={item.value.string_value}" for item in point.attributes)
                    value = float(getattr(point, point.WhichOneof("value")))
                    found[metric.name, metric.description, metric.unit, kind, *attributes] = value
                    points += 1
    assert len(found) == points, "a point was sent twice"
    return found


def _seconds(call: Callable[[], object]) -> float:
    started = time.perf_counter()
    call()
    return time.perf_counter() - started
