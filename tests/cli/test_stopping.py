import os
import pty
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import pytest
import redis

from otel_queue.cli.stopping import _Stop, stop_on_signals
from tests.servers.redis import redis_program

_STUCK = """
import threading
from otel_queue.cli.stopping import stop_on_signals

stop = stop_on_signals()
print("ready", flush=True)
stop.wait()
print("stopping", flush=True)
threading.Event().wait()
"""
_CLOSED = """
import signal
from otel_queue.cli.stopping import stop_on_signals

stop = stop_on_signals()
for number in (signal.SIGHUP, signal.SIGTERM):
    signal.raise_signal(number)
    print(number.name, stop.is_set())
"""


@pytest.fixture(autouse=True)
def not_under_nohup() -> Iterator[None]:
    """What these tests start inherits what is ignored, and the tests may be run by nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def lines_of(process: subprocess.Popen[str]) -> IO[str]:
    assert process.stdout is not None
    return process.stdout


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_command_is_asked_to_end_once_and_ended_when_that_takes_too_long(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", _STUCK], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert lines_of(process).readline() == "ready\n"
            process.send_signal(number)
            assert lines_of(process).readline() == "stopping\n"
            process.send_signal(number)
            assert process.wait(30) == -number
        finally:
            process.kill()


@pytest.mark.parametrize(("under", "hangs_up"), [([], True), (["nohup"], False)])
def test_a_closed_terminal_ends_a_command_unless_it_is_under_nohup(under: list[str], hangs_up: bool) -> None:
    ran = subprocess.run([*under, sys.executable, "-c", _CLOSED], capture_output=True, text=True, check=True)
    assert ran.stdout.splitlines() == [f"SIGHUP {hangs_up}", "SIGTERM True"]


@pytest.fixture
def handlers() -> Iterator[None]:
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, before, strict=True):
        signal.signal(number, handler)


def test_a_signal_at_any_place_of_the_wait_ends_it(handlers: None) -> None:
    """Every line that `wait` runs, also of what it calls, is once the one at which the signal comes."""
    for place in range(100):
        stop = stop_on_signals()
        left = place

        def trace(frame: Any, event: str, argument: Any) -> Any:
            nonlocal left
            if event == "line":
                left -= 1
                if left == -1:
                    os.kill(os.getpid(), signal.SIGTERM)
            return trace

        sys.settrace(trace)
        try:
            has_ended = stop.wait(0.0)
        finally:
            sys.settrace(None)
        if left >= 0:
            assert not has_ended, "no signal has come: every place of the wait has been tried"
            assert place > 0
            return
        assert stop.wait(30)
    pytest.fail("the wait has more places than this test tries")


def test_the_end_can_be_asked_for_by_another_thread_and_stays_asked_for() -> None:
    stop = _Stop()
    assert not stop.wait(0.0)
    assert not stop.wait(-1.0)
    threading.Timer(0.01, stop.set).start()
    assert stop.wait(30)
    stop.set()
    assert stop.is_set()
    assert stop.wait()


def test_a_demo_whose_terminal_is_closed_leaves_no_redis_behind(tmp_path: Path) -> None:
    redis_program()
    keeper, terminal = pty.openpty()
    command = [sys.executable, "-m", "otel_queue", "demo", "--listen", "127.0.0.1:0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    demo = subprocess.Popen(
        command, stdin=terminal, stdout=terminal, stderr=terminal, env=environment, start_new_session=True
    )
    os.close(terminal)
    said = b""
    try:
        while b"serving http" not in said:
            said += os.read(keeper, 4096)
        os.close(keeper)
        demo.send_signal(signal.SIGHUP)  # as the shell does, whose terminal it was
        assert demo.wait(60) == 0
    except OSError as error:
        pytest.fail(f"{error}: the demo ended by itself: {said.decode()}")
    finally:
        demo.kill()
        demo.wait()
    url = re.search(rb"redis://[0-9.:]+/0", said)
    assert url is not None
    with redis.Redis.from_url(url[0].decode()) as client, pytest.raises(redis.ConnectionError):
        client.ping()
    assert list(tmp_path.iterdir()) == []
