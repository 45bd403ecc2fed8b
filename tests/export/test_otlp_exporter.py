"""The stock exporters get all that the variables say: over TLS on both sides, with headers, compressed."""

import gzip
import ssl
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
    ExportMetricsServiceResponse,
)
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2_grpc import add_MetricsServiceServicer_to_server
from opentelemetry.proto.metrics.v1.metrics_pb2 import AggregationTemporality
from opentelemetry.sdk.metrics.export import MetricExporter, MetricExportResult, MetricsData, ResourceMetrics

from otel_queue.config import Config, load_config
from otel_queue.export.otlp import otlp_exporter
from otel_queue.export.points import SeriesPoints
from otel_queue.samples import Family
from otel_queue.worker import Worker
from tests.export.ways_out import RESOURCE, metrics_of

Seen = list[tuple[dict[str, Any], ExportMetricsServiceRequest]]


class Files:
    """A server's and a client's certificates of one authority, and another that neither trusts."""

    def __init__(self, folder: Path) -> None:
        authority, stranger = trustme.CA(), trustme.CA()
        self.server = authority.issue_cert("localhost")
        self.authority, self.stranger = folder / "ca.pem", folder / "stranger.pem"
        self.client, self.key = folder / "client.pem", folder / "client.key"
        authority.cert_pem.write_to_path(self.authority)
        stranger.cert_pem.write_to_path(self.stranger)
        client = authority.issue_cert("client")
        client.cert_chain_pems[0].write_to_path(self.client)
        client.private_key_pem.write_to_path(self.key)


@contextmanager
def over_http(files: Files) -> Iterator[tuple[int, Seen]]:
    seen: Seen = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told = {name.lower(): value for name, value in self.headers.items()}
            if told.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            seen.append((told, ExportMetricsServiceRequest.FromString(body)))
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    files.server.configure_cert(context)
    context.load_verify_locations(files.authority)
    context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    server.handle_error = lambda *_: None  # type: ignore[method-assign] # a client without a certificate
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield server.server_port, seen
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def over_grpc(files: Files, *options: tuple[str, int]) -> Iterator[tuple[int, Seen]]:
    seen: Seen = []

    class Service:
        def Export(self, request: Any, context: Any) -> ExportMetricsServiceResponse:  # noqa: N802 # its name in gRPC
            deadline = {"grpc-timeout": context.time_remaining()}  # gRPC keeps this header for itself
            seen.append((dict(context.invocation_metadata()) | deadline, request))
            return ExportMetricsServiceResponse()

    server = grpc.server(ThreadPoolExecutor(2), options=options)
    add_MetricsServiceServicer_to_server(Service(), server)  # type: ignore[no-untyped-call]
    pair = (files.server.private_key_pem.bytes(), files.server.cert_chain_pems[0].bytes())
    credentials = grpc.ssl_server_credentials([pair], files.authority.read_bytes(), require_client_auth=True)
    port = server.add_secure_port("127.0.0.1:0", credentials)
    server.start()
    try:
        yield port, seen
    finally:
        server.stop(0).wait()


@pytest.fixture(autouse=True)
def no_bundle_of_the_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """Requests puts these before the authorities that it is given."""
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)


WAYS = {"http/protobuf": over_http, "grpc": over_grpc}


def config(files: Files, port: int, protocol: str, **variables: str) -> Config:
    """Trusts the server, and is trusted by it."""
    variables = {
        "ENDPOINT": f"https://localhost:{port}",
        "PROTOCOL": protocol,
        "CERTIFICATE": str(files.authority),
        "CLIENT_CERTIFICATE": str(files.client),
        "CLIENT_KEY": str(files.key),
    } | variables
    return load_config({}, {f"OTEL_EXPORTER_OTLP_{name}": value for name, value in variables.items()})


@pytest.mark.parametrize("protocol", WAYS)
def test_a_push_has_the_certificates_and_headers_of_the_variables(protocol: str, tmp_path: Path) -> None:
    files = Files(tmp_path)
    with WAYS[protocol](files) as (port, seen):
        headers = "authorization=Bearer%20s3cret,X-Scope=one"
        worker = Worker(config(files, port, protocol, HEADERS=headers, COMPRESSION="gzip", TIMEOUT="10"))
        worker.recorder.ingest("p")
        assert worker.shutdown()
    told, request = seen[-1]
    assert (told["authorization"], told["x-scope"]) == ("Bearer s3cret", "one")
    assert request.resource_metrics
    if protocol != "grpc":  # where the compression is the transport's
        assert told["content-encoding"] == "gzip"


@pytest.mark.parametrize("protocol", WAYS)
def test_by_either_protocol_a_worker_has_the_temporality_and_histograms_of_the_variables(
    protocol: str, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    with WAYS[protocol](files) as (port, seen):
        variables = {
            "METRICS_TEMPORALITY_PREFERENCE": "delta",
            "METRICS_DEFAULT_HISTOGRAM_AGGREGATION": "base2_exponential_bucket_histogram",
        }
        worker = Worker(config(files, port, protocol, **variables))
        worker.recorder.attempt_made(project="p", attempt_id="1", succeeded=True, duration_seconds=0.1)
        assert worker.shutdown()
    duration = metrics_of(seen[-1][1])["convoy_event_delivery_attempt_duration_seconds"].exponential_histogram
    assert duration.data_points[0].count == 1
    assert duration.aggregation_temporality == AggregationTemporality.AGGREGATION_TEMPORALITY_DELTA


def grpc_exporter(files: Files, port: int, **variables: str) -> MetricExporter:
    """With messages of two points."""
    return otlp_exporter(config(files, port, "grpc", **variables).opentelemetry, most_points=2)


SIZES = Family("asynq_queue_size", [((f"q{number}",), 1.0) for number in range(5)], 0.0, "test")
DATA = SeriesPoints({}).beside(MetricsData([ResourceMetrics(RESOURCE, [], "")]), [SIZES])


def test_a_grpc_push_is_split_into_messages_with_the_timeout_of_the_variables(tmp_path: Path) -> None:
    files = Files(tmp_path)
    with over_grpc(files) as (port, seen):
        exporter = grpc_exporter(files, port, TIMEOUT="60")
        assert exporter.export(DATA) is MetricExportResult.SUCCESS
        exporter.shutdown()
    assert [len(metrics_of(request)[SIZES.name].gauge.data_points) for _, request in seen] == [2, 2, 1]
    # The wire has three digits of it, rounded up.
    assert all(10.0 < headers["grpc-timeout"] < 61.0 for headers, _ in seen)


@pytest.mark.parametrize(
    ("compression", "result"), [("gzip", MetricExportResult.FAILURE), ("none", MetricExportResult.SUCCESS)]
)
def test_by_grpc_a_push_is_compressed_only_where_the_variables_say_so(
    compression: str, result: MetricExportResult, tmp_path: Path
) -> None:
    files = Files(tmp_path)
    # The server sees no header of it; this one knows no compression, and refuses it.
    with over_grpc(files, ("grpc.compression_enabled_algorithms_bitset", 1)) as (port, _):
        exporter = grpc_exporter(files, port, COMPRESSION=compression)
        assert exporter.export(DATA) is result
        exporter.shutdown()


@pytest.mark.parametrize("missing", ["CERTIFICATE", "CLIENT_CERTIFICATE"])
@pytest.mark.parametrize("protocol", WAYS)
def test_without_a_certificate_or_with_anothers_nothing_is_pushed(protocol: str, missing: str, tmp_path: Path) -> None:
    files = Files(tmp_path)
    with WAYS[protocol](files) as (port, seen):
        variables = {
            "CERTIFICATE": {"CERTIFICATE": str(files.stranger)},
            "CLIENT_CERTIFICATE": {"CLIENT_CERTIFICATE": "", "CLIENT_KEY": ""},
        }
        worker = Worker(config(files, port, protocol, **variables[missing]))
        assert worker.shutdown(2.0) is False
    assert seen == []
