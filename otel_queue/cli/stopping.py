"""How a command that runs for long is asked to end."""

import contextlib
import signal
import threading
from typing import Any


class _Stop(threading.Event):
    """An event that a signal's handler can set in the middle of the same thread's `wait`.

    threading.Event guards itself by a lock that a handler waits for in vain while `wait` holds it. Here waiting is to
    get through a gate, and setting opens it: nothing is held on the way.
    """

    def __init__(self) -> None:
        super().__init__()
        self._is_set = False
        self._gate = threading.Lock()
        self._gate.acquire()

    def is_set(self) -> bool:
        """Whether the end has been asked for."""
        return self._is_set

    def set(self) -> None:
        """Asks for the end, for good."""
        self._is_set = True
        self._open()

    def wait(self, timeout: float | None = None) -> bool:
        """Returns when the end has been asked for, or after `timeout` seconds; whether it has been."""
        if self._gate.acquire(timeout=-1 if timeout is None else max(0.0, timeout)):
            self._open()  # for who waits beside or after this
        return self._is_set

    def _open(self) -> None:
        with contextlib.suppress(RuntimeError):  # it is open
            self._gate.release()


def stop_on_signals() -> threading.Event:
    """Set by the first SIGINT, SIGTERM or SIGHUP; the same signal again ends the process at once.

    A SIGHUP that is ignored, as under nohup, stays ignored.
    """
    stop = _Stop()

    def ask(number: int, _: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        stop.set()

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, ask)
    return stop
