"""The picture in the docs: `python -m tests.server.screenshot docs/images/status-page.png` (a quarter of an hour).

It is taken from the real demo, watched by a real browser for as long as a chart reaches back.
"""

import argparse
import sys
import time
from pathlib import Path

from tests.server.browser import Page, chromium
from tests.servers.process import ServerProcess, free_port, temporary_directory, wait_until

_WIDTH, _HEIGHT = 1280, 980


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path, help="the PNG to write")
    parser.add_argument("--minutes", type=float, default=15.0, help="how long the demo runs before; default 15")
    options = parser.parse_args()
    with temporary_directory() as directory, chromium() as page:
        demo = _demo(directory, port := free_port())
        try:
            demo.start()
            picture = _picture(page, f"http://127.0.0.1:{port}/", options.minutes * 60)
        finally:
            demo.stop()
    options.file.parent.mkdir(parents=True, exist_ok=True)
    options.file.write_bytes(picture)


def _demo(directory: Path, port: int) -> ServerProcess:
    program = str(Path(sys.executable).parent / "otel-queue")
    return ServerProcess(
        "demo",
        [program, "demo", "--listen", f"127.0.0.1:{port}"],
        is_ready=lambda: "serving" in (directory / "demo.log").read_text(),
        directory=directory,
    )


def _picture(page: Page, url: str, seconds: float) -> bytes:
    page.resize(_WIDTH, _HEIGHT)
    page.open(url)
    end = time.monotonic() + seconds

    def is_time() -> bool:
        page.evaluate("new Promise(done => setTimeout(done, 1000))")  # the page refreshes itself meanwhile
        return time.monotonic() >= end

    wait_until(is_time, within=seconds + 60)
    assert not page.complaints, page.complaints
    return page.screenshot()


if __name__ == "__main__":
    main()
