import signal
import subprocess
import sys

import pytest

_STUCK = """
import threading
from otel_queue.cli.stopping import stop_on_signals

stop = stop_on_signals()
print("ready", flush=True)
stop.wait()
print("stopping", flush=True)
threading.Event().wait()
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_command_is_asked_to_end_once_and_ended_when_that_takes_too_long(number: signal.Signals) -> None:
    with subprocess.Popen([sys.executable, "-c", _STUCK], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            assert process.stdout.readline() == "ready\n"
            process.send_signal(number)
            assert process.stdout.readline() == "stopping\n"
            process.send_signal(number)
            assert process.wait(30) == -number
        finally:
            process.kill()
