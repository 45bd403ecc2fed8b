"""What no client should send, and more connections than there can be."""

import asyncio
import contextlib
import logging
import socket
import subprocess
import sys
from collections.abc import MutableMapping
from typing import Any

import pytest

from otel_queue.server.app import App
from otel_queue.server.listener import Listener, _bounds
from tests.server.client import eventually, fetch, read_to_end
from tests.server.conftest import Serve
from tests.server.fake_exporter import BODY, FakeExporter

CHUNKED = b"%s /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
NO_CHUNK = b"zz\r\n"
_SERVE_WITH_FEW_DESCRIPTORS = """
import resource
import sys
from otel_queue.cli import main

resource.setrlimit(resource.RLIMIT_NOFILE, (80, 80))
sys.exit(main(["serve", "--redis-url", "redis://127.0.0.1:1/0", "--listen", "127.0.0.1:0"]))
"""


def connect(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), timeout=30)


def assert_nobody_is_answered_any_more(listener: Listener, caplog: pytest.LogCaptureFixture) -> None:
    eventually(lambda: not listener._server.server_state.tasks and not listener._server.server_state.connections)
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == []
    assert fetch(listener.port).body != b""


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_nonsense_before_the_answer_is_answered_instead(
    serve: Serve, exporter: FakeExporter, method: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    listener = serve()
    exporter.gate.clear()
    with connect(listener) as client:
        client.sendall(CHUNKED % method)
        eventually(lambda: exporter.at_once == 1)
        client.sendall(NO_CHUNK)
        reply = read_to_end(client)
    exporter.gate.set()
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert BODY not in reply
    assert_nobody_is_answered_any_more(listener, caplog)


def test_nonsense_while_the_answer_is_being_sent_is_answered_instead(
    exporter: FakeExporter, caplog: pytest.LogCaptureFixture
) -> None:
    told = asyncio.Event()
    app = App(exporter)

    async def late(scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        if scope["type"] != "http" or scope["method"] != "PUT":
            await app(scope, receive, send)
        else:
            await told.wait()
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": BODY})

    class Tells(logging.Handler):
        """What comes between the bytes that are no request and the end of their connection."""

        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    log, tells = logging.getLogger("uvicorn.error"), Tells()
    log.addHandler(tells)
    try:
        with Listener(late, "127.0.0.1", 0) as listener:
            with connect(listener) as client:
                client.sendall(CHUNKED % b"PUT" + NO_CHUNK)
                reply = read_to_end(client)
            assert_nobody_is_answered_any_more(listener, caplog)
    finally:
        log.removeHandler(tells)
    assert reply.startswith(b"HTTP/1.1 400 ")
    assert BODY not in reply


def test_nonsense_in_the_middle_of_the_answer_ends_the_connection(
    serve: Serve, exporter: FakeExporter, caplog: pytest.LogCaptureFixture
) -> None:
    exporter.body = b"x" * 40_000_000
    listener = serve()
    with connect(listener) as client:
        client.sendall(CHUNKED % b"GET")
        beginning = client.recv(1000)
        client.sendall(NO_CHUNK)
        reply = beginning + read_to_end(client)
    assert reply.startswith(b"HTTP/1.1 200 ")
    assert b"HTTP/1.1 400" not in reply
    assert_nobody_is_answered_any_more(listener, caplog)


def test_nonsense_behind_the_answer_ends_the_connection(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    listener = serve()
    with connect(listener) as client:
        client.sendall(CHUNKED % b"GET")
        reply = b""
        while not reply.endswith(BODY):
            reply += client.recv(65_536)
        client.sendall(NO_CHUNK)
        assert read_to_end(client) == b""
    assert_nobody_is_answered_any_more(listener, caplog)


@pytest.mark.parametrize("protocol", ["h2c", "websocket"])
def test_who_asks_for_another_protocol_is_answered_in_this_one(
    serve: Serve, protocol: str, caplog: pytest.LogCaptureFixture
) -> None:
    headers = {"Connection": "Upgrade, HTTP2-Settings", "Upgrade": protocol, "HTTP2-Settings": "AAMAAABkAAQAAP__"}
    reply = fetch(serve().port, headers=headers)
    assert (reply.status, reply.body) == (200, BODY)
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.mark.parametrize(
    ("descriptors", "bounds"), [(-1, (512, 64)), (1_000_000, (512, 64)), (1024, (512, 64)), (80, (40, 5)), (8, (4, 1))]
)
def test_there_are_fewer_connections_where_descriptors_are_few(
    descriptors: int, bounds: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("otel_queue.server.listener.resource.getrlimit", lambda _: (descriptors, -1))
    assert _bounds() == bounds


def test_more_clients_than_there_are_descriptors_leave_some_to_the_exporter() -> None:
    command = [sys.executable, "-c", _SERVE_WITH_FEW_DESCRIPTORS]
    with (
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process,
        contextlib.ExitStack() as clients,
    ):
        assert process.stderr is not None
        try:
            while "serving http://127.0.0.1:" not in (line := process.stderr.readline()):
                assert line
            port = int(line.partition("127.0.0.1:")[2].partition("/")[0])
            address = ("127.0.0.1", port)
            connected = [clients.enter_context(socket.create_connection(address, timeout=30)) for _ in range(90)]
            eventually(lambda: sum(map(is_ended, connected)) >= 90 - 40)
            clients.close()
            eventually(lambda: is_served(port))
        finally:
            process.terminate()
            said = process.stderr.read()
        assert process.wait(30) == 0
    assert "Traceback" not in said


def is_ended(client: socket.socket) -> bool:
    try:
        client.setblocking(False)
        return client.recv(1) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def is_served(port: int) -> bool:
    with contextlib.suppress(OSError):
        return fetch(port).status == 200
    return False
