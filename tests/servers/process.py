import contextlib
import random
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

START_TIMEOUT_SECONDS = 60.0
STOP_TIMEOUT_SECONDS = 10.0
LOG_TAIL_CHARACTERS = 4_000

_given_ports: set[int] = set()


def free_port() -> int:
    """A loopback port below the kernel's range for outgoing connections; no port is given twice."""
    while True:
        port = random.randint(15_000, 32_000)
        if port in _given_ports:
            continue
        _given_ports.add(port)
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port


def wait_until(probe: Callable[[], T], *, within: float = START_TIMEOUT_SECONDS, what: str = "") -> T:
    """The first true answer of `probe`, which is polled; an AssertionError after `within` seconds.

    An exception out of `probe` counts as not yet, and is the cause shown in the end; an AssertionError is raised
    at once, so a probe can also watch for what must not happen on the way.
    """
    deadline = time.monotonic() + within
    seen: T | None = None
    while True:
        raised: Exception | None = None
        try:
            seen = probe()
            if seen:
                return seen
        except AssertionError:
            raise
        except Exception as error:
            raised = error
        if time.monotonic() > deadline:
            what = what or getattr(probe, "__name__", "the probe")
            raise AssertionError(f"not within {within:g} s: {what}; last seen: {str(seen)[:2000]}") from raised
        time.sleep(0.03)


@contextlib.contextmanager
def temporary_directory() -> Iterator[Path]:
    # A short path, since a Unix socket's may have 107 characters only.
    with tempfile.TemporaryDirectory(prefix="oq-") as path:
        yield Path(path)


class ServerProcess:
    """One server and its log; `start` again after an end keeps its arguments, so its ports too."""

    def __init__(
        self,
        name: str,
        arguments: Sequence[str],
        *,
        is_ready: Callable[[], object],
        directory: Path,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log_file = directory / f"{name}.log"
        self._arguments = list(arguments)
        self._is_ready = is_ready
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._process is not None, f"{self.name} was not started"
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """None while the process lives; the negative signal number where one ended it."""
        return None if self._process is None else self._process.poll()

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def logs(self) -> str:
        return self.log_file.read_text(errors="replace") if self.log_file.exists() else ""

    def start(self, *, wait: bool = True) -> None:
        assert not self.is_running, f"{self.name} is running already"
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(
                self._arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self._environment is None else dict(self._environment),
                start_new_session=True,
            )
        if wait:
            self.wait_until_ready()

    def wait_until_ready(self) -> None:
        def is_ready() -> object:
            # Asked before the probe: another server may answer on the port that ours failed to bind.
            return not self.is_running or self._is_ready()

        try:
            wait_until(is_ready, what=f"{self.name} is ready")
        except AssertionError as error:
            raise self._failure("did not answer") from error
        if not self.is_running:
            raise self._failure(f"ended with exit code {self.exit_code}")

    def _failure(self, what: str) -> AssertionError:
        tail = self.logs()[-LOG_TAIL_CHARACTERS:]
        return AssertionError(f"{self.name} {what}: {' '.join(self._arguments)}\n{tail}")

    def pause(self) -> None:
        """The process is stopped as by a debugger: connections stay open and nothing answers."""
        self.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self.send_signal(signal.SIGCONT)

    def send_signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def wait(self, within: float = STOP_TIMEOUT_SECONDS) -> int:
        """The exit code; subprocess.TimeoutExpired when the process has not ended by then."""
        assert self._process is not None
        return self._process.wait(within)

    def kill(self) -> None:
        """SIGKILL, and the wait for its effect."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def stop(self) -> None:
        """Asks the process to end, and makes it end."""
        if self._process is None or self._process.poll() is not None:
            return
        self._process.terminate()
        self._process.send_signal(signal.SIGCONT)
        try:
            self._process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
