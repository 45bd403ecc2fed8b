"""A worker of its own process, which counts what its input tells and pushes it by OTLP; it ends with its input."""

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from typing import Final

from otel_queue import Worker

END_TIMEOUT_SECONDS: Final = 30.0


class PushingWorker:
    """The process, as its test sees it."""

    def __init__(self, endpoint: str, name: str, protocol: str) -> None:
        self.name = name
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            env={
                **inherited,
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_EXPORTER_OTLP_TIMEOUT": "2",
                "OTEL_METRIC_EXPORT_INTERVAL": "300",
                "OTEL_SERVICE_NAME": name,
                "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={name}-1",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def ingest(self, project: str, count: int = 1) -> None:
        """So many events of the project were ingested; returns when the worker has counted them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        for _ in range(count):
            self._process.stdin.write(f"{project}\n")
        self._process.stdin.flush()
        for _ in range(count):
            assert self._process.stdout.readline() == "counted\n"

    def end(self) -> bool:
        """The worker ends as it does at SIGTERM; whether its last push arrived."""
        self._process.communicate(timeout=END_TIMEOUT_SECONDS)
        return self._process.returncode == 0

    def kill(self) -> None:
        """SIGKILL: nothing more is pushed."""
        self._process.kill()
        self._process.communicate()


@contextlib.contextmanager
def pushing_worker(endpoint: str, name: str, protocol: str = "http/protobuf") -> Iterator[PushingWorker]:
    """A worker whose OTLP goes to `endpoint`, several times a second; `name` is that of its service."""
    worker = PushingWorker(endpoint, name, protocol)
    try:
        yield worker
    finally:
        worker.kill()


def _work() -> int:
    worker = Worker()
    for number, line in enumerate(sys.stdin):
        project = line.strip()
        worker.recorder.ingest(project)
        worker.recorder.attempt_made(
            project=project, attempt_id=str(number), succeeded=True, http_status=200, duration_seconds=0.02
        )
        sys.stdout.write("counted\n")
        sys.stdout.flush()
    return 0 if worker.shutdown() else 1


if __name__ == "__main__":
    sys.exit(_work())
