"""A worker's ways out: /metrics of its own, OTLP, and the end of both."""

import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

import otel_queue
from otel_queue.config import Config
from otel_queue.worker import Worker
from tests.servers.process import free_port
from tests.servers.redis import RedisServer


class Collector(ThreadingHTTPServer):
    """Takes OTLP and keeps the sums of what it was sent last."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", free_port()), _Endpoint)
        self.sums: dict[str, float] = {}
        self.resource: dict[str, str] = {}


class _Endpoint(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        request = ExportMetricsServiceRequest()
        request.ParseFromString(self.rfile.read(int(self.headers["Content-Length"])))
        assert isinstance(self.server, Collector)
        for resource in request.resource_metrics:
            self.server.resource = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    total = sum(point.as_int or point.as_double for point in metric.sum.data_points)
                    self.server.sums[metric.name] = total
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_metrics_are_served_where_it_listens_and_no_longer_after_the_end() -> None:
    worker = Worker(listen=f"127.0.0.1:{free_port()}")
    worker.recorder.ingest("p")
    url = f"http://{worker.address}"
    with urllib.request.urlopen(f"{url}/metrics") as response:
        assert response.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        assert 'convoy_ingest_total{project="p",source="http"} 1.0' in response.read().decode()
    with pytest.raises(urllib.error.HTTPError, match="404"):
        urllib.request.urlopen(f"{url}/other")
    assert worker.shutdown()
    with pytest.raises(urllib.error.URLError):
        urllib.request.urlopen(f"{url}/metrics")


def test_the_configuration_narrows_attributes() -> None:
    worker = Worker(Config(attributes={"convoy_ingest_total": ("project",)}))
    worker.recorder.ingest("p")
    assert 'convoy_ingest_total{project="p"} 1.0' in worker.render()[1].decode()
    worker.shutdown()


def test_shutdown_pushes_what_was_counted_last(collector: Collector, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{collector.server_port}")
    monkeypatch.setenv("OTEL_METRIC_EXPORT_INTERVAL", "3600000")
    worker = Worker()
    for number in range(5):
        worker.recorder.attempt_made(project="p", attempt_id=str(number), succeeded=True)
    assert worker.shutdown()
    assert collector.sums["convoy_event_delivery_attempts_total"] == 5
    assert collector.resource["service.name"] == "otel-queue-worker"


def test_a_variable_without_effect_is_told_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "9000")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    Worker().shutdown()
    assert [record.message.partition(";")[0] for record in caplog.records] == [
        "OTEL_EXPORTER_PROMETHEUS_PORT: has no effect"
    ]


def test_shutdown_says_that_the_last_push_did_not_arrive(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    worker = Worker()
    assert worker.shutdown(0.5) is False
    assert worker.shutdown(0.5) is True


_OWN_PROVIDER = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
import otel_queue

recorder = otel_queue.Recorder()
recorder.ingest("before")
reader = InMemoryMetricReader()
metrics.set_meter_provider(MeterProvider([reader], views=otel_queue.views("ledger")))
recorder.ingest("after")
recorder.attempt_made(project="p", attempt_id="a", succeeded=True)
for metric in reader.get_metrics_data().resource_metrics[0].scope_metrics[0].metrics:
    if metric.name.startswith("convoy"):
        print(metric.name, sorted(point.attributes["project"] for point in metric.data.data_points))
"""


def test_an_applications_own_provider_is_used_although_it_is_set_later() -> None:
    ran = subprocess.run([sys.executable, "-c", _OWN_PROVIDER], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == ["convoy_ingest_total ['after', 'before']"]


def test_recording_into_an_applications_provider_needs_the_metrics_api_alone() -> None:
    code = (
        "import sys; from otel_queue import Recorder, compose, enqueue; "
        "print({'opentelemetry.sdk', 'redis', 'prometheus_client', 'msgpack'} & sys.modules.keys())"
    )
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "set()"


_ALONE = """
import sys
from opentelemetry.sdk.metrics import MeterProvider
from otel_queue import Recorder, ledger_writer, views
from otel_queue.config import Config, RedisConfig

writer = ledger_writer(Config(redis=RedisConfig(url=sys.argv[1])), waits=sys.argv[2] == "sync")
if sys.argv[2] == "sync":  # as after an outage: it queues
    writer._open_until = {writer._store.place("p"): float("inf")}
print(Recorder(MeterProvider(views=views("ledger")), writer=writer).event_created(project="p", event_id="1"))
"""


@pytest.mark.parametrize("kind", ["buffered", "sync"])
def test_a_writer_without_a_worker_writes_what_is_queued_when_the_program_ends(
    redis_server: RedisServer, kind: str
) -> None:
    ran = subprocess.run(
        [sys.executable, "-c", _ALONE, redis_server.url, kind], capture_output=True, text=True, check=True
    )
    assert (ran.stdout, ran.stderr) == ("queued\n", "")
    with redis_server.client() as client:
        [counts] = client.keys("oq:{p}:counts:*")
        assert client.hvals(counts) == [b"1"]


def test_the_packages_public_names_are_all_there() -> None:
    for name in otel_queue.__all__:
        assert getattr(otel_queue, name) is not None
    with pytest.raises(AttributeError, match="nothing_like_it"):
        otel_queue.nothing_like_it  # noqa: B018 # the access is what is tested
