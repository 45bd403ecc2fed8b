"""An OpenTelemetry Collector, built from tests/collector.

`python -m tests.servers.collector` builds it beforehand, which takes minutes the first time.
"""

import contextlib
import fcntl
import hashlib
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.requirements_gate import missing
from tests.servers.process import ServerProcess, free_port, temporary_directory

SOURCES = Path(__file__).parent.parent / "collector"
CACHE_VARIABLE = "TESTS_CACHE"
# What `go build` says when it is not the source that is at fault.
UNREACHABLE = re.compile(
    r"dial tcp|no such host|i/o timeout|403 Forbidden|connection refused|lookup disabled|requires go >="
)


def cache_directory() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "otel-queue-tests")


def build_collector() -> Path:
    """The Collector's program, from the cache where these sources were built before.

    The first build takes minutes and needs Go and a module proxy; the test is skipped where they are missing.
    """
    sources = sorted([*SOURCES.glob("*.go"), SOURCES / "go.mod", SOURCES / "go.sum"])
    digest = hashlib.sha256(b"\0".join(path.read_bytes() for path in sources)).hexdigest()[:16]
    program = cache_directory() / f"collector-{digest}"
    if program.exists():
        return program
    go = shutil.which("go") or missing("go is not on PATH, and no Collector is in the cache")
    program.parent.mkdir(parents=True, exist_ok=True)
    # Two test runs that start together build once.
    with program.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            _build(go, program)
    return program


def _build(go: str, program: Path) -> None:
    unfinished = program.with_suffix(".unfinished")
    built = subprocess.run(
        [go, "build", "-p", "2", "-trimpath", "-ldflags=-s -w", "-o", unfinished, "."],
        cwd=SOURCES,
        env={**os.environ, "CGO_ENABLED": "0", "GOWORK": "off"},
        capture_output=True,
        text=True,
    )
    if built.returncode == 0:
        unfinished.rename(program)
        return
    if UNREACHABLE.search(built.stderr):
        missing(f"the Collector cannot be built here: {built.stderr[-500:]}")
    raise AssertionError(f"go build failed:\n{built.stderr[-4_000:]}")


class CollectorServer:
    """A running Collector; a port that its configuration does not use is not listened on."""

    def __init__(self, directory: Path, config: str) -> None:
        self.grpc_port, self.http_port, self.metrics_port, self.own_metrics_port = (free_port() for _ in range(4))
        config_file = directory / "collector.yaml"
        config_file.write_text(config)
        self.process = ServerProcess(
            f"collector-{self.http_port}",
            [str(build_collector()), f"--config={config_file}"],
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
        [build_collector(), "validate", f"--config={config_file}"], capture_output=True, text=True, timeout=60
    )


if __name__ == "__main__":
    print(build_collector())  # noqa: T201  # its result
