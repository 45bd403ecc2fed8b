"""The real Go asynq, driven over a pipe: the program in peer_go/, built once per version of its sources."""

import base64
import json
import subprocess
from types import TracebackType
from typing import Any, Self

from tests.go_program import ASYNQ_PEER, build_go_program

STOP_TIMEOUT_SECONDS = 20.0


class AsynqError(Exception):
    """What asynq answered instead of a result: its own text, or `panic: ...`."""


class AsynqPeer:
    """One process with asynq's client, its inspector, and on demand one server and one scheduler.

    A context manager: the process runs inside the `with`. Verbs and their arguments are in peer_go/verbs.go;
    bytes travel both ways as base64, which `call` does for arguments and `decoded` undoes for results.
    """

    def __init__(self, redis_url: str) -> None:
        self._arguments = [str(build_go_program(ASYNQ_PEER)), "--redis", redis_url]
        self._process: subprocess.Popen[str] | None = None

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            self._arguments, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8"
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()  # the end of its input ends the process, without a clean shutdown of its server
        try:
            process.wait(STOP_TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
        process.stdout.close()

    def call(self, verb: str, **args: Any) -> Any:
        """The result of one command; raises AsynqError with asynq's text."""
        process = self._running()
        assert process.stdin is not None
        assert process.stdout is not None
        command = {"verb": verb, "args": args}
        process.stdin.write(json.dumps(command, default=_encoded) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        if not line:
            raise EOFError(f"the asynq peer ended during {verb}, exit code {process.wait()}")
        reply = json.loads(line)
        if "error" in reply:
            raise AsynqError(reply["error"])
        return reply["result"]

    def kill(self) -> None:
        """SIGKILL: nothing is shut down, no lease is given back."""
        process = self._running()
        process.kill()
        process.wait()

    def _running(self) -> subprocess.Popen[str]:
        assert self._process is not None, "use AsynqPeer in a with statement"
        return self._process


def _encoded(value: object) -> str:
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    raise TypeError(f"{value!r} cannot travel to the asynq peer")


def decoded(value: str | None) -> bytes:
    """Bytes out of a result; Go's nil is empty."""
    return base64.b64decode(value) if value else b""
