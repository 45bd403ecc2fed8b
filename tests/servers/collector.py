"""An OpenTelemetry Collector, built from tests/collector."""

import contextlib
import os
import socket
import subprocess
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path

from tests.go_program import COLLECTOR, build_go_program
from tests.servers.otel_queue import Scrape
from tests.servers.process import ServerProcess, free_port, temporary_directory


class CollectorServer:
    """A running Collector; a port that its configuration does not use is not listened on."""

    def __init__(self, directory: Path, configs: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.grpc_port, self.http_port, self.metrics_port, self.own_metrics_port = (free_port() for _ in range(4))
        arguments = [str(build_go_program(COLLECTOR))]
        for number, config in enumerate(configs):
            config_file = directory / f"{number}.yaml"
            config_file.write_text(config)
            arguments.append(f"--config={config_file}")
        self.process = ServerProcess(
            f"collector-{self.http_port}",
            arguments,
            is_ready=self._listens,
            directory=directory,
            environment={**os.environ, **self._own_variables(directory), **environment},
        )

    def _own_variables(self, directory: Path) -> dict[str, str]:
        return {
            "OTLP_GRPC_LISTEN": f"127.0.0.1:{self.grpc_port}",
            "OTLP_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "PROMETHEUS_LISTEN": f"127.0.0.1:{self.metrics_port}",
            "OWN_METRICS_PORT": str(self.own_metrics_port),
            "QUEUE_DIRECTORY": str(directory / "queue"),
        }

    @property
    def grpc_endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT with the protocol grpc."""
        return f"http://127.0.0.1:{self.grpc_port}"

    @property
    def http_endpoint(self) -> str:
        """For OTEL_EXPORTER_OTLP_ENDPOINT with the protocol http/protobuf."""
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def metrics_address(self) -> str:
        """Where its prometheus exporter is scraped."""
        return f"127.0.0.1:{self.metrics_port}"

    def page(self) -> Scrape:
        """What its prometheus exporter shows now."""
        return _scrape(self.metrics_port)

    def own_metrics(self) -> Scrape:
        """What it says about itself: otelcol_*."""
        return _scrape(self.own_metrics_port)

    def _listens(self) -> bool:
        # Receivers start last, and HTTP after gRPC.
        with socket.create_connection(("127.0.0.1", self.http_port), timeout=1):
            return True


def _scrape(port: int) -> Scrape:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as response:
        return Scrape(response.read().decode())


@contextlib.contextmanager
def collector(*configs: str, environment: Mapping[str, str] | None = None) -> Iterator[CollectorServer]:
    """Each of `configs` is the text of one more --config, which the Collector lays over those before it.

    They name ports by the variables of collector-config/gateway.yaml, OTLP over HTTP among them, and the directory of a
    queue by that of agent.yaml; it stays while the server is killed and started again.
    """
    with temporary_directory() as directory:
        server = CollectorServer(directory, configs, environment or {})
        try:
            server.process.start()
            yield server
        finally:
            server.process.stop()


def validate(*config_files: Path) -> subprocess.CompletedProcess[str]:
    """`collector validate` on files laid over each other: exit code 0 and silence where they are fine."""
    return subprocess.run(
        [build_go_program(COLLECTOR), "validate", *(f"--config={file}" for file in config_files)],
        capture_output=True,
        text=True,
        timeout=60,
    )
