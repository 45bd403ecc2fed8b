"""The shipped Collector configurations, at a test's pace, and an application that pushes what no View has narrowed."""

from pathlib import Path
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.metrics import Meter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from otel_queue.catalog import Row
from tests.servers.collector import CollectorServer

CONFIGS: Final = Path(__file__).parents[2] / "collector-config"
GATEWAY: Final = (CONFIGS / "gateway.yaml").read_text()
REMOTE_WRITE: Final = (CONFIGS / "gateway-remote-write.yaml").read_text()
OTLP: Final = (CONFIGS / "gateway-otlp.yaml").read_text()
AGENT: Final = (CONFIGS / "agent.yaml").read_text()
# The agent of a test does not wait as long as that of an operator.
IMPATIENT: Final = """
exporters:
  otlp_http/gateway:
    timeout: 5s
    retry_on_failure:
      initial_interval: 100ms
      max_interval: 500ms
"""
# What an operator would write who does not want the lists.
WITHOUT_LISTS: Final = """
service:
  pipelines:
    metrics:
      processors: [memory_limiter]
"""


class Application:
    """A process with a MeterProvider of its own and without our Views: each attribute that it sets is sent."""

    def __init__(self, collector: CollectorServer, *, scope_version: str = "", **resource: str) -> None:
        exporter = OTLPMetricExporter(f"{collector.http_endpoint}/v1/metrics")
        self._provider = MeterProvider(
            [PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)],
            resource=Resource({"service.name": "app", "service.instance.id": "app-1", **resource}),
            shutdown_on_exit=False,
        )
        self.meter: Meter = self._provider.get_meter("otel_queue", scope_version)

    def record(self, row: Row, value: int, attributes: dict[str, str]) -> None:
        """One value of a metric of the catalog, as an instrument of its kind takes it."""
        match row.kind:
            case "counter":
                self.meter.create_counter(row.name, row.unit).add(value, attributes)
            case "updowncounter":
                self.meter.create_up_down_counter(row.name, row.unit).add(value, attributes)
            case "histogram":
                self.meter.create_histogram(row.name, row.unit).record(value, attributes)
            case "gauge":
                self.meter.create_gauge(row.name, row.unit).set(value, attributes)

    def push(self) -> None:
        """Sends everything once, as it does at its end."""
        self._provider.shutdown()
