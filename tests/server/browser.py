"""A real Chromium without a window, driven through its own debugging pipe."""

import base64
import contextlib
import itertools
import json
import os
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from select import select
from typing import Any, Final

from tests.requirements_gate import Needs, missing

_NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "chrome")
_ANSWER_SECONDS: Final = 60.0


class BrowserError(Exception):
    """The browser could not do what it was asked to; while a document loads, it may a moment later."""


@dataclass
class Page:
    """One tab. `complaints` is what the console and the browser said against the page, policy violations included."""

    _browser: "_Pipe"
    _session: str
    complaints: list[str] = field(default_factory=list)

    def open(self, url: str) -> None:
        """Returns when the document is loaded."""
        self.call("Page.navigate", url=url)
        self.wait_for("Page.loadEventFired")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The result of a method of the DevTools protocol."""
        answer: dict[str, Any] = self._browser.call(method, parameters, self._session, self._heard)
        return answer

    def wait_for(self, event: str) -> None:
        """Returns when the tab reports the event."""
        self._browser.wait(lambda message: message.get("method") == event, self._heard)

    def evaluate(self, expression: str) -> Any:
        """What the expression gives, promises awaited; works with scripts switched off too."""
        answer = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise BrowserError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def resize(self, width: int, height: int, *, mobile: bool = False) -> None:
        """The tab's size in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=mobile)

    def screenshot(self, *, whole: bool = False) -> bytes:
        """A PNG of what is seen, or of the whole document."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def _heard(self, message: dict[str, Any]) -> None:
        if message.get("sessionId") != self._session:
            return
        parameters = message.get("params", {})
        if message.get("method") == "Log.entryAdded":
            self.complaints.append(str(parameters["entry"]["text"]))
        elif message.get("method") in ("Runtime.consoleAPICalled", "Runtime.exceptionThrown"):
            self.complaints.append(json.dumps(parameters))


@contextlib.contextmanager
def chromium() -> Iterator[Page]:
    """A tab of a browser with a profile of its own; skips, or fails, where there is none."""
    program = next(filter(None, map(shutil.which, _NAMES)), None)
    if program is None:
        missing(Needs.CHROMIUM, "no chromium on PATH")
    with tempfile.TemporaryDirectory(prefix="oq-", ignore_cleanup_errors=True) as profile:
        pipe = _Pipe(program, Path(profile))
        try:
            yield _tab(pipe)
        finally:
            pipe.close()


def _tab(pipe: "_Pipe") -> Page:
    target = pipe.call("Target.createTarget", {"url": "about:blank"})["targetId"]
    session = pipe.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
    page = Page(pipe, session)
    for domain in ("Page", "Runtime", "Log"):
        page.call(f"{domain}.enable")
    return page


class _Pipe:
    """The browser's process, and messages to and from it: JSON, each ended by a zero byte."""

    def __init__(self, program: str, profile: Path) -> None:
        from_us, self._to = os.pipe()
        self._from, to_us = os.pipe()
        # The browser reads from 3 and writes to 4; bash puts them there, wherever they are now.
        command = f'exec "$0" "$@" 3<&{from_us} 4>&{to_us}'
        flags = (
            *("--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"),
            *("--hide-scrollbars", "--disable-background-networking", "--remote-debugging-pipe"),
            f"--user-data-dir={profile}",
        )
        with (profile / "log").open("wb") as log:
            self._process = subprocess.Popen(
                ["bash", "-c", command, program, *flags],
                pass_fds=(from_us, to_us),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        os.close(from_us)
        os.close(to_us)
        self._numbers = itertools.count(1)
        self._read = bytearray()

    def call(self, method: str, parameters: dict[str, Any], session: str | None = None, heard: Any = None) -> Any:
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        answer = self.wait(lambda message: message.get("id") == number, heard)
        if "error" in answer:
            raise BrowserError(f"{method}: {answer['error']}")
        return answer["result"]

    def wait(self, is_it: Any, heard: Any = None) -> dict[str, Any]:
        """The first message that `is_it`; those before it go to `heard`."""
        deadline = time.monotonic() + _ANSWER_SECONDS
        while True:
            message = self._next(deadline)
            if heard:
                heard(message)
            if is_it(message):
                return message

    def _next(self, deadline: float) -> dict[str, Any]:
        while (end := self._read.find(b"\0")) < 0:
            ready, _, _ = select([self._from], [], [], max(deadline - time.monotonic(), 0.0))
            assert ready, "the browser did not answer in time"
            chunk = os.read(self._from, 1 << 20)
            assert chunk, "the browser has ended"
            self._read += chunk
        message: dict[str, Any] = json.loads(self._read[:end])
        del self._read[: end + 1]
        return message

    def close(self) -> None:
        # Its children too, which would outlive it for a moment and write to the profile.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
