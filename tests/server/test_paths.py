import pytest

from tests.server.client import fetch, talk
from tests.server.conftest import Serve
from tests.server.fake_exporter import BODY, FakeExporter


def request_line(line: bytes) -> bytes:
    return line + b"\r\nHost: x\r\nConnection: close\r\n\r\n"


def status_of(reply: bytes) -> int:
    assert reply.startswith(b"HTTP/1.1 "), reply
    return int(reply.split(b" ", 2)[1])


def test_health_answers_without_asking_the_exporter(serve: Serve, exporter: FakeExporter) -> None:
    exporter.error = RuntimeError("redis is gone")

    reply = fetch(serve().port, "/healthz")

    assert (reply.status, reply.body) == (200, b"ok\n")
    assert reply.headers["Content-Type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize(
    "target",
    [
        b"//metrics",
        b"/metrics/",
        b"/Metrics",
        b"/%2e%2e/metrics",
        b"/../metrics",
        b"/x/../metrics",
        b"/metrics%00",
        b"/metrics;x",
        b"/metrics%0d%0aX-Injected:%201",
        b"/%2e%2e%2f%2e%2e%2fetc/passwd",
        b"http://elsewhere//metrics",
        b"ftp://elsewhere/metrics",
        b"/favicon.ico",
        b"*",
    ],
)
def test_any_other_path_is_not_found(serve: Serve, exporter: FakeExporter, target: bytes) -> None:
    reply = talk(serve().port, request_line(b"GET " + target + b" HTTP/1.1"))

    assert status_of(reply) == 404
    assert b"asynq" not in reply
    assert b"x-injected" not in reply.lower()
    assert exporter.asked == []


@pytest.mark.parametrize(
    "target", [b"/metrics", b"/metrics?name[]=x", b"http://elsewhere/metrics", b"HTTPS://[::1]:9464/metrics?x"]
)
def test_metrics_are_found_with_a_query_and_in_absolute_form(serve: Serve, target: bytes) -> None:
    reply = talk(serve().port, request_line(b"GET " + target + b" HTTP/1.1"))

    assert status_of(reply) == 200
    assert reply.endswith(BODY)


def test_an_absolute_form_without_a_path_is_the_landing_page(serve: Serve) -> None:
    assert b"text/html" in talk(serve().port, request_line(b"GET http://elsewhere HTTP/1.1"))


@pytest.mark.parametrize("path", ["/metrics", "/healthz", "/readyz", "/"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "TRACE", "PATCH", "get"])
def test_other_methods_are_told_which_are_allowed(serve: Serve, exporter: FakeExporter, path: str, method: str) -> None:
    reply = talk(serve().port, request_line(f"{method} {path} HTTP/1.1".encode()))

    assert status_of(reply) == 405
    assert b"\r\nallow: GET, HEAD\r\n" in reply
    assert exporter.asked == []


@pytest.mark.parametrize("head", [b"Content-Length: 1000000", b"Transfer-Encoding: chunked"])
def test_a_body_that_never_comes_is_not_waited_for(serve: Serve, head: bytes) -> None:
    reply = talk(serve().port, b"POST /metrics HTTP/1.1\r\nHost: x\r\n" + head + b"\r\n\r\n")

    assert status_of(reply) == 405
    assert b"\r\nconnection: close\r\n" in reply


def test_two_lengths_in_one_request_are_refused(serve: Serve, exporter: FakeExporter) -> None:
    smuggled = b"GET /metrics HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\nhello"

    assert status_of(talk(serve().port, smuggled)) == 400
    assert exporter.asked == []


def test_bytes_that_are_not_http_are_refused(serve: Serve) -> None:
    assert status_of(talk(serve().port, b"\x16\x03\x01 hello\r\n\r\n")) == 400


def test_pipelined_requests_are_answered_in_order(serve: Serve) -> None:
    first = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"

    reply = talk(serve().port, first + request_line(b"GET /metrics HTTP/1.1"))

    assert reply.count(b"HTTP/1.1 200") == 2
    assert reply.index(b"ok\n") < reply.index(b"asynq_queue_size")


def test_an_old_client_without_a_host_is_answered(serve: Serve) -> None:
    assert talk(serve().port, b"GET /metrics HTTP/1.0\r\n\r\n").endswith(BODY)


def test_a_websocket_upgrade_is_answered_as_a_plain_request(serve: Serve) -> None:
    upgrade = (
        b"GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: Upgrade, close\r\nUpgrade: websocket\r\n"
        b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    )

    assert status_of(talk(serve().port, upgrade)) == 200


def test_configured_headers_replace_the_own_ones_and_an_empty_one_takes_it_away(serve: Serve) -> None:
    headers = {"X-Frame-Options": "sameorigin", "Content-Security-Policy": "", "X-XSS-Protection": "0"}

    reply = fetch(serve(headers=headers).port, "/")

    assert reply.headers.get_all("X-Frame-Options") == ["sameorigin"]
    assert reply.headers["X-XSS-Protection"] == "0"
    assert "Content-Security-Policy" not in reply.headers
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
