"""An OpenTelemetry Collector, built from tests/collector."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.go_program import COLLECTOR, build_go_program
from tests.servers.process import ServerProcess, free_port, temporary_directory


class CollectorServer:
    """A running Collector; a port that its configuration does not use is not listened on."""

    def __init__(self, directory: Path, config: str) -> None:
        self.grpc_port, self.http_port, self.metrics_port, self.own_metrics_port = (free_port() for _ in range(4))
        config_file = directory / "collector.yaml"
        config_file.write_text(config)
        self.process = ServerProcess(
            f"collector-{self.http_port}",
            [str(build_go_program(COLLECTOR)), f"--config={config_file}"],
            is_ready=self._listens,
            directory=directory,
            environment={**os.environ, **self._listen_variables()},
        )

    def _listen_variables(self) -> dict[str, str]:
        return {
            "OTLP_GRPC_LISTEN": f"127.0.0.1:{self.grpc_port}",
            "OTLP_HTTP_LISTEN": f"127.0.0.1:{self.http_port}",
            "PROMETHEUS_LISTEN": f"127.0.0.1:{self.metrics_port}",
            "OWN_METRICS_PORT": str(self.own_metrics_port),
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

    def _listens(self) -> bool:
        # Receivers start last, and HTTP after gRPC.
        with socket.create_connection(("127.0.0.1", self.http_port), timeout=1):
            return True


@contextlib.contextmanager
def collector(config: str) -> Iterator[CollectorServer]:
    """`config` names its ports by the variables of collector-config/gateway.yaml, OTLP over HTTP among them."""
    with temporary_directory() as directory:
        server = CollectorServer(directory, config)
        try:
            server.process.start()
            yield server
        finally:
            server.process.stop()


def validate(config_file: Path) -> subprocess.CompletedProcess[str]:
    """`collector validate` on a file: exit code 0 and silence where it is fine."""
    return subprocess.run(
        [build_go_program(COLLECTOR), "validate", f"--config={config_file}"], capture_output=True, text=True, timeout=60
    )
