"""A receiver of webhooks whose paths say how it answers.

/ok 200; /no 400; /broken 500; /after/N 500 for the first N requests of a body, then 200; /late/S 200 after S seconds.
"""

import collections
import contextlib
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Receiver:
    def __init__(self) -> None:
        self.requests: collections.Counter[str] = collections.Counter()
        """How many of each path's first word."""
        self.healed = threading.Event()
        """Set: every path answers 200."""
        self._seen: collections.Counter[tuple[str, bytes]] = collections.Counter()
        self._lock = threading.Lock()
        self._stopped = threading.Event()
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status = receiver._status(self.path, body)
                with contextlib.suppress(ConnectionError):
                    self.send_response(status)
                    self.send_header("Content-Length", "0")
                    self.end_headers()

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self._server.server_port}{path}"

    def _status(self, path: str, body: bytes) -> int:
        _, kind, *argument = path.split("/")
        with self._lock:
            self.requests[kind] += 1
            self._seen[path, body] += 1
            seen = self._seen[path, body]
        if kind == "late":
            self._stopped.wait(float(argument[0]))
        if self.healed.is_set():
            return 200
        if kind == "after":
            return 500 if seen <= int(argument[0]) else 200
        return {"no": 400, "broken": 500}.get(kind, 200)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._server.shutdown()
        self._server.server_close()


@contextlib.contextmanager
def receiver() -> Iterator[Receiver]:
    running = Receiver()
    running.start()
    try:
        yield running
    finally:
        running.stop()
