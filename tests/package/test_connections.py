"""It tells nobody about itself: each connection that is opened, and each name that is looked up, was configured.

Seen by the interpreter's audit hooks, so for all that goes through Python's sockets: everything but libpq and gRPC,
which are loaded only where a database or the protocol grpc is configured.
"""

import ast
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.asynq_writer import AsynqWriter
from tests.ledger.ledgers import Ledger
from tests.package.distributions import clean_environment
from tests.servers.process import ServerProcess, free_port, wait_until
from tests.servers.redis import RedisServer

# The first argument names the file; the rest is left to the code behind.
_WATCHED = """
import sys
_seen = open(sys.argv.pop(1), "a", buffering=1)
def _note(event, arguments):
    if event in ("socket.connect", "socket.sendto"):
        print(repr(arguments[1]), file=_seen)
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        print(repr((arguments[0], None)), file=_seen)
sys.addaudithook(_note)
"""
_COMMAND = _WATCHED + "from otel_queue.cli import main\nsys.exit(main())\n"
_EVERY_NAME = _WATCHED + "import otel_queue\nfor name in otel_queue.__all__: getattr(otel_queue, name)\n"
_WORKER = """
from otel_queue import Worker, ledger_writer, load_config
config = load_config()
worker = Worker(config, ledger=lambda: ledger_writer(config), listen="127.0.0.1:0")
worker.recorder.attempt_made(project="p", attempt_id="a", endpoint="e", succeeded=True, http_status=200)
worker.render()
assert worker.shutdown()
"""


class Destinations:
    """What a watched process has asked for so far."""

    def __init__(self, directory: Path) -> None:
        self.file = directory / "seen"

    def addresses(self) -> set[tuple[str, int]]:
        return {(host, port) for host, port in self._seen() if port is not None}

    def hosts(self) -> set[str]:
        """Connected to or looked up."""
        return {host for host, _ in self._seen()}

    def _seen(self) -> Iterator[tuple[str, int | None]]:
        for line in self.file.read_text(encoding="utf-8").splitlines():
            host, port = ast.literal_eval(line)[:2]
            yield host, port


@contextmanager
def serving(seen: Destinations, url: str, **environment: str) -> Iterator[str]:
    """The address of a `serve` that is watched."""
    address = f"127.0.0.1:{free_port()}"
    process = ServerProcess(
        "watched",
        [sys.executable, "-c", _COMMAND, str(seen.file), "serve", "--redis-url", url, "--listen", address],
        is_ready=lambda: get(f"http://{address}/readyz"),
        directory=seen.file.parent,
        environment=clean_environment() | environment,
    )
    try:
        process.start()
        yield address
    finally:
        process.stop()


def get(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as response:
        body: bytes = response.read()
        return body


def test_serve_connects_to_redis_and_to_nothing_else(tmp_path: Path, redis_server: RedisServer) -> None:
    AsynqWriter(redis_server.url).pending("default")
    seen = Destinations(tmp_path)
    with serving(seen, redis_server.url) as address:
        for path in ("/", "/metrics", "/healthz", "/readyz"):
            assert get(f"http://{address}{path}")
    assert seen.addresses() == {("127.0.0.1", redis_server.port)}
    assert seen.hosts() == {"127.0.0.1"}


def test_serve_pushes_where_it_was_told_and_nowhere_else(tmp_path: Path, redis_server: RedisServer) -> None:
    otlp = free_port()
    seen = Destinations(tmp_path)
    environment = {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{otlp}",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
        "OTEL_METRIC_EXPORT_INTERVAL": "100",
    }
    expected = {("127.0.0.1", redis_server.port), ("127.0.0.1", otlp)}
    with serving(seen, redis_server.url, **environment):
        wait_until(lambda: seen.addresses() >= expected, what="a push was tried")
    assert seen.addresses() == expected
    assert seen.hosts() == {"127.0.0.1"}


def test_a_worker_connects_to_its_ledger_and_to_nothing_else(tmp_path: Path, redis_server: RedisServer) -> None:
    Ledger(redis_server.url).close()
    seen = Destinations(tmp_path)
    run(_WATCHED + _WORKER, seen, OTEL_QUEUE_REDIS_URL=redis_server.url)
    assert seen.addresses() == {("127.0.0.1", redis_server.port)}
    assert seen.hosts() == {"127.0.0.1"}


def test_importing_all_that_is_public_connects_to_nothing(tmp_path: Path) -> None:
    seen = Destinations(tmp_path)
    run(_EVERY_NAME, seen)
    assert seen.file.read_text(encoding="utf-8") == ""


def run(code: str, seen: Destinations, **environment: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", code, str(seen.file)],
        env=clean_environment() | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
