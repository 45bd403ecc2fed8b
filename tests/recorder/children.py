"""Work done in a forked child, with a deadline: a child that hangs is killed and fails the test."""

import os
import select
import signal
import traceback
import warnings
from collections.abc import Callable

LONG = 20.0


def in_child(work: Callable[[], str]) -> str:
    """What `work` returned in a child of this process, at most 64 KiB."""
    reading, writing = os.pipe()
    with warnings.catch_warnings():
        # To fork with threads is what is tested.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child == 0:
        try:
            os.write(writing, work().encode())
        except BaseException:
            os.write(writing, traceback.format_exc().encode())
        finally:
            os._exit(0)
    os.close(writing)
    said = b""
    try:
        if not select.select([reading], [], [], LONG)[0]:
            raise AssertionError("the child hangs")
        said = os.read(reading, 65_536)
    finally:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(reading)
    return said.decode()
