import asyncio
from typing import Any

import pytest

from otel_queue.server.app import App
from tests.server.fake_exporter import BODY, FakeExporter


async def no_more() -> dict[str, Any]:
    await asyncio.Event().wait()
    raise AssertionError


def call(app: App, scope: dict[str, Any]) -> list[Any]:
    """What the app sends for a request of `scope`, without a server in between."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(app(scope, no_more, send))
    return sent


def http(method: str, path: str) -> dict[str, Any]:
    return {"type": "http", "method": method, "path": path, "headers": []}


def test_a_large_body_is_handed_over_in_slices(exporter: FakeExporter) -> None:
    exporter.body = BODY * 100

    start, *pieces = call(App(exporter), http("GET", "/metrics"))

    assert (b"content-length", str(len(exporter.body)).encode()) in start["headers"]
    assert b"".join(piece["body"] for piece in pieces) == exporter.body
    assert max(len(piece["body"]) for piece in pieces) == 256 * 1024
    assert [piece.get("more_body", False) for piece in pieces] == [True] * (len(pieces) - 1) + [False]


def test_head_hands_over_no_body_to_any_server(exporter: FakeExporter) -> None:
    start, *pieces = call(App(exporter), http("HEAD", "/metrics"))

    assert (b"content-length", str(len(BODY)).encode()) in start["headers"]
    assert pieces == [{"type": "http.response.body", "body": b""}]


def test_what_is_neither_http_nor_lifespan_is_refused(exporter: FakeExporter) -> None:
    with pytest.raises(ValueError, match="ASGI scope 'websocket' is not served"):
        call(App(exporter), {"type": "websocket"})
