import contextlib
import socket
import ssl

import pytest
import trustme

from otel_queue.server.listener import Listener
from tests.server.client import eventually, fetch, read_to_end, talk
from tests.server.conftest import Serve
from tests.server.fake_exporter import BODY, FakeExporter

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: x\r\n"


def connect(listener: Listener) -> socket.socket:
    return socket.create_connection(("127.0.0.1", listener.port), timeout=30)


def open_connections(listener: Listener) -> int:
    return len(listener._server.server_state.connections)


def test_a_slow_client_does_not_hold_up_a_fast_one(serve: Serve) -> None:
    listener = serve()

    with contextlib.ExitStack() as stack:
        for _ in range(100):
            stack.enter_context(connect(listener)).sendall(REQUEST)

        assert fetch(listener.port).body == BODY


@pytest.mark.parametrize("beginning", [b"", b"GET /me", REQUEST + b"X-Slow: "])
def test_a_head_that_is_never_completed_is_cut_off(serve: Serve, exporter: FakeExporter, beginning: bytes) -> None:
    with connect(serve(head_seconds=0.05)) as slow:
        slow.sendall(beginning)

        assert read_to_end(slow) == b""

    assert exporter.asked == []


def test_a_second_head_that_is_never_completed_is_cut_off(serve: Serve) -> None:
    with connect(serve(head_seconds=0.5)) as slow:
        slow.sendall(REQUEST + b"\r\n" + REQUEST)

        received = read_to_end(slow)

    assert received.count(b"HTTP/1.1 200") == 1
    assert received.endswith(BODY)


def test_a_head_that_trickles_in_gets_no_more_time_than_another(serve: Serve) -> None:
    with connect(serve(head_seconds=0.2)) as slow, contextlib.suppress(ConnectionError, BrokenPipeError):
        slow.settimeout(0.02)
        for _ in range(500):  # ten seconds: past any time that the server gives
            slow.sendall(b"G")
            with contextlib.suppress(TimeoutError):
                if slow.recv(1) == b"":
                    return
        pytest.fail("the server still reads")


def test_an_idle_connection_outlives_the_time_for_a_head(serve: Serve) -> None:
    listener = serve(head_seconds=0.5)

    with connect(listener) as idle, connect(listener) as silent:
        idle.sendall(REQUEST + b"\r\n")
        received = b""
        while not received.endswith(BODY):
            received += idle.recv(65536)
        assert read_to_end(silent) == b""  # its time has passed by now, and it began no earlier
        idle.sendall(REQUEST + b"Connection: close\r\n\r\n")

        assert read_to_end(idle).endswith(BODY)


@pytest.mark.parametrize("end_of_head", [b"\r\n", b"Connection: close\r\n\r\n"])
def test_a_client_that_takes_nothing_is_cut_off(serve: Serve, exporter: FakeExporter, end_of_head: bytes) -> None:
    exporter.body = b"x" * 40_000_000
    listener = serve(write_seconds=0.1)

    with connect(listener) as greedy:
        greedy.sendall(REQUEST + end_of_head)
        eventually(lambda: len(exporter.asked) == 1)
        eventually(lambda: open_connections(listener) == 0)

        assert len(read_to_end(greedy)) < len(exporter.body)


def test_a_client_that_takes_all_but_the_end_is_cut_off(serve: Serve, exporter: FakeExporter) -> None:
    listener = serve(write_seconds=0.05)

    for size in range(0, 40_000_000, 48_000):  # until one ends just past what the kernel holds for the client
        exporter.body = b"x" * size
        with socket.socket() as greedy:
            greedy.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            greedy.connect(("127.0.0.1", listener.port))
            greedy.sendall(REQUEST + b"Connection: close\r\n\r\n")
            eventually(lambda: len(exporter.asked) == 1)
            eventually(lambda: open_connections(listener) == 0)
            exporter.asked.clear()
            if len(read_to_end(greedy)) < size:
                return
    pytest.fail("the kernel takes everything")


def test_a_client_that_takes_nothing_over_tls_is_cut_off(
    serve: Serve, exporter: FakeExporter, authority: trustme.CA
) -> None:
    exporter.body = b"x" * 40_000_000
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    listener = serve(ssl_context=context, write_seconds=0.1)
    client = ssl.create_default_context()
    authority.configure_trust(client)

    with connect(listener) as plain, client.wrap_socket(plain, server_hostname="127.0.0.1") as greedy:
        greedy.sendall(REQUEST + b"\r\n")
        eventually(lambda: len(exporter.asked) == 1)
        eventually(lambda: open_connections(listener) == 0)


def test_a_client_that_takes_nothing_does_not_hold_up_the_end(serve: Serve, exporter: FakeExporter) -> None:
    exporter.body = b"x" * 40_000_000
    listener = serve()

    with connect(listener) as greedy:
        greedy.sendall(REQUEST + b"\r\n")
        eventually(lambda: len(exporter.asked) == 1)
        listener.stop(timeout=1)

        assert not listener.is_serving
        assert len(read_to_end(greedy)) < len(exporter.body)


@pytest.mark.parametrize(
    "head",
    [
        REQUEST + b"X-Huge: " + b"x" * 1_000_000,
        REQUEST + b"X: y\r\n" * 100_000,
        b"GET /" + b"x" * 1_000_000,
    ],
)
def test_a_huge_head_is_refused_and_the_connection_closed(serve: Serve, exporter: FakeExporter, head: bytes) -> None:
    listener = serve()

    with connect(listener) as huge, contextlib.suppress(ConnectionError):
        huge.sendall(head)
        reply = read_to_end(huge)
        assert reply == b"" or reply.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))

    eventually(lambda: open_connections(listener) == 0)
    assert exporter.asked == []
    assert fetch(listener.port).status == 200


def test_a_head_just_past_the_bound_is_answered_with_an_error(serve: Serve) -> None:
    reply = talk(serve().port, REQUEST + b"X-Huge: " + b"x" * 17_000)

    assert reply.startswith((b"HTTP/1.1 400", b"HTTP/1.1 431"))


def test_a_large_head_inside_the_bound_is_read(serve: Serve) -> None:
    assert fetch(serve().port, headers={"X-Large": "x" * 12_000}).status == 200


def test_connections_past_the_bound_are_closed_at_once(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_queue.server.listener._CONNECTIONS", 3)
    listener = serve()

    with contextlib.ExitStack() as stack:
        for _ in range(3):
            stack.enter_context(connect(listener))
        eventually(lambda: open_connections(listener) == 3)
        surplus = stack.enter_context(connect(listener))
        assert read_to_end(surplus) == b""

    eventually(lambda: open_connections(listener) == 0)
    assert fetch(listener.port).status == 200


def test_a_tls_handshake_that_never_comes_is_cut_off(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("otel_queue.server.listener._HANDSHAKE_SECONDS", 0.1)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)

    with connect(serve(ssl_context=context)) as silent:
        assert read_to_end(silent) == b""
