"""The ASGI application: paths, methods, authentication and the order in which scrapes are worked on."""

import logging
import re
import time
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from otel_queue.server.auth import BasicAuth
from otel_queue.server.encoding import accepts_gzip, compress
from otel_queue.server.exporter import Exporter
from otel_queue.server.page import CONTENT_SECURITY_POLICY, status_page
from otel_queue.server.turnstile import ClientGone, Turnstile, TurnstileFull

_log: Final = logging.getLogger(__name__)

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_PLAIN: Final = "text/plain; charset=utf-8"
_HEADERS: Final = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "deny",
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
}
_SECONDS: Final = re.compile(r"\d{1,9}(?:\.\d{1,12})?")
# What the answer needs on its way: the scraper should get it before it gives up.
_MARGIN_SECONDS: Final = 0.5
_RETRY_AFTER_SECONDS: Final = "5"
_SLICE_BYTES: Final = 256 * 1024
# How long a page waits for a reading; what comes later is on the page after it.
_PAGE_READ_SECONDS: Final = 1.0


@dataclass(frozen=True, slots=True)
class _Response:
    status: int
    body: bytes
    content_type: str = _PLAIN
    headers: Mapping[str, str] | None = None


class _TooLate(Exception):  # noqa: N818 - an answer to the client, not a fault
    """The scraper's patience ended while it waited for its turn."""


class App:
    """Serves one exporter. With `auth` every path asks for credentials, health included.

    `headers` replace the app's own of the same name; an empty value takes one away. At most `scrapes_at_once`
    scrapes are worked on, `scrapes_waiting` more wait their turn, and any beyond get 503.
    """

    def __init__(
        self,
        exporter: Exporter,
        *,
        auth: BasicAuth | None = None,
        headers: Mapping[str, str] | None = None,
        scrapes_at_once: int = 8,
        scrapes_waiting: int = 256,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._exporter = exporter
        self._auth = auth
        own = {name.lower(): value for name, value in (_HEADERS | dict(headers or {})).items()}
        self._headers = [(name.encode(), value.encode("latin-1")) for name, value in own.items() if value]
        self._clock = clock
        # Apart from each other: neither a Redis that hangs nor a flood of wrong passwords holds up the rest.
        self._scraping = Turnstile("scrape", at_once=scrapes_at_once, waiting=scrapes_waiting)
        self._probing = Turnstile("ready", at_once=2, waiting=64)
        self._drawing = Turnstile("page", at_once=2, waiting=64)
        self._verifying = Turnstile("auth", at_once=2, waiting=256)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Answers one request, or lives through one start and stop (ASGI 3)."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        if scope["type"] != "http":
            raise ValueError(f"ASGI scope {scope['type']!r} is not served; expected http or lifespan")
        request = _Request(scope, receive)
        try:
            response = await self._answer(request)
        except ClientGone:
            return
        except TurnstileFull:
            response = _unavailable("too many requests are waiting; try again later")
        except _TooLate:
            response = _unavailable("no turn came within the scrape's timeout; try again later")
        except Exception:
            _log.exception("%s %s failed", request.method, request.path)
            response = _text(500, "the exporter failed; its log says why")
        await self._send(request, response, send)

    async def _answer(self, request: "_Request") -> _Response:
        if not await self._is_authorized(request):
            challenge = {"WWW-Authenticate": 'Basic realm="otel-queue", charset="UTF-8"'}
            return _text(401, "credentials are missing or wrong", challenge)
        routes = {
            "/metrics": self._metrics,
            "/healthz": self._health,
            "/readyz": self._readiness,
            "/": self._page,
        }
        route = routes.get(request.path)
        if route is None:
            return _text(404, f"nothing here; look at {', '.join(routes)}")
        if request.method not in ("GET", "HEAD"):
            return _text(405, "only GET and HEAD are answered", {"Allow": "GET, HEAD"})
        return await route(request)

    async def _is_authorized(self, request: "_Request") -> bool:
        if self._auth is None:
            return True
        credentials = request.header("authorization")
        if credentials is None:
            return False
        if self._auth.remembers(credentials):
            return True
        return await self._verifying.run(partial(self._auth.allows, credentials), request.until_gone)

    async def _metrics(self, request: "_Request") -> _Response:
        accept = request.header("accept") or ""
        budget = _budget_seconds(request.header("x-prometheus-scrape-timeout-seconds"))
        compressed = accepts_gzip(request.header("accept-encoding") or "")
        arrived = time.monotonic()

        def scrape() -> _Response:
            left = budget
            if budget is not None:
                left = budget - (time.monotonic() - arrived)
                if left <= 0:
                    raise _TooLate
            exposition = self._exporter.scrape(accept, left)
            headers = {"Vary": "Accept, Accept-Encoding"}
            if not compressed:
                return _Response(200, exposition.body, exposition.content_type, headers)
            headers["Content-Encoding"] = "gzip"
            return _Response(200, compress(exposition.body), exposition.content_type, headers)

        return await self._scraping.run(scrape, request.until_gone)

    async def _health(self, _request: "_Request") -> _Response:
        return _text(200, "ok")

    async def _readiness(self, request: "_Request") -> _Response:
        readiness = await self._probing.run(self._exporter.ready, request.until_gone)
        return _text(200 if readiness.ok else 503, readiness.detail)

    async def _page(self, request: "_Request") -> _Response:
        compressed = accepts_gzip(request.header("accept-encoding") or "")

        def draw() -> _Response:
            self._exporter.freshen(_PAGE_READ_SECONDS)
            page = status_page(self._exporter.status(), self._clock())
            headers = {"Vary": "Accept-Encoding"}
            if compressed:
                page, headers["Content-Encoding"] = compress(page), "gzip"
            return _Response(200, page, "text/html; charset=utf-8", headers)

        return await self._drawing.run(draw, request.until_gone)

    async def _send(self, request: "_Request", response: _Response, send: Send) -> None:
        own = {"Content-Type": response.content_type, "Content-Length": str(len(response.body))}
        if request.has_body:
            own["Connection"] = "close"  # nobody reads what else the client has to say
        own |= response.headers or {}
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in own.items()]
        await send({"type": "http.response.start", "status": response.status, "headers": [*headers, *self._headers]})
        body = b"" if request.method == "HEAD" else response.body
        # In slices, each waiting for room: handed over whole, a body would lie in the transport's buffer once
        # more, and under TLS nobody would notice a client that takes nothing.
        for start in range(0, len(body), _SLICE_BYTES):
            piece = body[start : start + _SLICE_BYTES]
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body", "body": b""})

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            event = (await receive())["type"]
            await send({"type": f"{event}.complete"})
            if event == "lifespan.shutdown":
                for turnstile in (self._scraping, self._probing, self._drawing, self._verifying):
                    turnstile.close()
                return


class _Request:
    """What is asked, by whom, and whether they still wait."""

    def __init__(self, scope: MutableMapping[str, Any], receive: Receive) -> None:
        self.method: str = scope["method"]
        self.path = _origin_form(scope["path"])
        self._headers: list[tuple[bytes, bytes]] = list(scope["headers"])
        self._receive = receive

    def header(self, name: str) -> str | None:
        """The header's lines joined as a list, None when there are none. `name` is in lower case."""
        values = [value.decode("latin-1") for key, value in self._headers if key == name.encode()]
        return ", ".join(values) if values else None

    @property
    def has_body(self) -> bool:
        """Whether the client announced a body, which no path wants."""
        return self.header("transfer-encoding") is not None or self.header("content-length") not in (
            None,
            "0",
        )

    async def until_gone(self) -> None:
        """Returns when the client has hung up."""
        while (await self._receive())["type"] != "http.disconnect":
            pass


def _origin_form(path: str) -> str:
    """The path of a target in absolute form too, which a server has to take (RFC 9112, 3.2.2)."""
    scheme, separator, rest = path.partition("://")
    if separator and scheme.lower() in ("http", "https"):
        return "/" + rest.partition("/")[2]
    return path


def _budget_seconds(header: str | None) -> float | None:
    """What is left of the scraper's timeout after the margin, None when it gave none that makes sense."""
    if header is None or not _SECONDS.fullmatch(header.strip()):
        return None
    timeout = float(header)
    return max(timeout - _MARGIN_SECONDS, timeout / 2) if timeout > 0 else None


def _text(status: int, text: str, headers: Mapping[str, str] | None = None) -> _Response:
    return _Response(status, f"{text}\n".encode("utf-8", "replace"), headers=headers)


def _unavailable(text: str) -> _Response:
    return _text(503, text, {"Retry-After": _RETRY_AFTER_SECONDS})
