"""How a command that runs for long is asked to end."""

import signal
import threading
from typing import Any


def stop_on_signals() -> threading.Event:
    """Set by the first SIGINT or SIGTERM; the same signal again ends the process at once."""
    stop = threading.Event()

    def ask(number: int, _: Any) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return stop
