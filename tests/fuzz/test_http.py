"""Bytes sent to the listener: well-formed answers or none, nothing of the bytes in them, and it still serves."""

import base64
import contextlib
import random
import socket
from collections.abc import Iterator
from typing import Final

import bcrypt
import pytest

from otel_queue.catalog import CATALOG
from otel_queue.export.instruments import meter_provider
from otel_queue.export.text import TextExposition
from otel_queue.samples import Family
from otel_queue.server.auth import BasicAuth
from otel_queue.server.encoding import accepts_gzip
from tests.export.ways_out import BUILD, RESOURCE, parsed
from tests.fuzz.budget import REQUESTS, TEXTS, counted, seeded
from tests.fuzz.mutation import mutate, random_bytes
from tests.server.client import fetch
from tests.server.conftest import Serve
from tests.server.fake_exporter import BODY, FakeExporter

pytestmark = pytest.mark.timeout(900)

MARK: Final = b"tr0ub4dor"
PATIENCE_SECONDS: Final = 0.02
CREDENTIALS: Final = b"Authorization: Basic YTpzZWNyZXQ=\r\n"  # a:secret
HASHED: Final = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
HIDDEN: Final = b"GET /metrics HTTP/1.1\r\nHost: x\r\n" + CREDENTIALS + b"\r\n"
STATUSES: Final = {200, 400, 401, 404, 405, 431, 501, 503, 505}


def head(line: bytes, *headers: bytes, authorized: bool = True) -> bytes:
    own = CREDENTIALS if authorized else b""
    return line + b"\r\nHost: x\r\n" + own + b"".join(header + b"\r\n" for header in headers) + b"\r\n"


WHOLE: Final = [
    head(b"GET /metrics HTTP/1.1"),
    head(b"GET /metrics HTTP/1.1", b"Accept: application/openmetrics-text;version=1.0.0;q=0.5,*/*;q=0.1"),
    head(b"GET / HTTP/1.1", b"Accept-Encoding: gzip;q=0.5, identity"),
    head(b"HEAD /healthz HTTP/1.1", b"X-Prometheus-Scrape-Timeout-Seconds: 9.5"),
    head(b"GET /metrics HTTP/1.0", b"Connection: close"),
    head(b"GET http://elsewhere/readyz?x=1 HTTP/1.1"),
    head(b"GET /" + MARK + b" HTTP/1.1", b"X-" + MARK + b": " + MARK),
    head(b"GET /metrics HTTP/1.1", b"Cookie: " + MARK, authorized=False),
    head(b"GET /metrics HTTP/1.1", b"Authorization: Basic " + MARK, authorized=False),
    head(b"GET /healthz HTTP/1.1") * 3,
    head(b"OPTIONS * HTTP/1.1") + head(b"GET /metrics HTTP/1.1"),
]
# A request that some server between might take for the body of the one before it, or the other way round.
WITH_BODY: Final = [
    head(b"POST /metrics HTTP/1.1", b"Content-Length: %d" % len(HIDDEN)) + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Content-Length: %d" % len(HIDDEN)) + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Transfer-Encoding: chunked") + b"%x\r\n" % len(HIDDEN) + HIDDEN + b"\r\n0\r\n\r\n",
    head(b"GET /healthz HTTP/1.1", b"Transfer-Encoding: chunked", b"Content-Length: 5") + b"0\r\n\r\n" + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Content-Length: 5", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Content-Length: 0", b"Content-Length: %d" % len(HIDDEN)) + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Content-Length: 0, 5") + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Content-Length: +5") + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Content-Length: -1") + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Content-Length : 5") + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Transfer-Encoding: xchunked") + b"0\r\n\r\n" + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n" + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Transfer-Encoding: chunked") + b"0;x=" + MARK + b"\r\n\r\n" + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Transfer-Encoding: chunked") + b"fffffffffffffffff\r\n" + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Expect: 100-continue", b"Content-Length: 5") + HIDDEN,
    head(b"GET /healthz HTTP/1.1", b"Upgrade: h2c", b"Connection: Upgrade", b"Content-Length: 3") + HIDDEN,
]  # fmt: skip
NO_HTTP: Final = [
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00", b"GET /metrics\r\n\r\n", b"\r\n" * 100,
    b"GET /metrics HTTP/9.9\r\n\r\n", b"*1\r\n$4\r\nPING\r\n", b"GET  /metrics  HTTP/1.1\r\n\r\n", b"\x00" * 100,
    b"GET /metrics HTTP/1.1\nHost: x\n\n", b"GET /metrics HTTP/1.1\r\n Host: x\r\n\r\n", b"GET /%00 HTTP/1.1\r\n\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b"GET / HTTP/1.1\r\n" + b"X: y\r\n" * 5_000,
]  # fmt: skip


def talk(port: int, sent: bytes) -> bytes:
    """What is answered, until nothing more comes for a while."""
    received = bytearray()
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection, contextlib.suppress(ConnectionError):
        connection.sendall(sent)
        connection.settimeout(PATIENCE_SECONDS)
        with contextlib.suppress(TimeoutError):
            while chunk := connection.recv(65_536):
                received += chunk
    return bytes(received)


def responses(stream: bytes) -> Iterator[tuple[int, bytes]]:
    """Status and all bytes of each response; anything else in the stream is an AssertionError."""
    while stream:
        assert stream.startswith(b"HTTP/1.1 "), stream[:200]
        top, mark, rest = stream.partition(b"\r\n\r\n")
        if not mark:
            return  # not all of it was waited for
        lines = top.split(b"\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (line.partition(b":") for line in lines[1:])}
        assert len(headers) == len(lines) - 1, "a header is there twice"
        status = int(lines[0].split(b" ")[1])
        # Without a length the answer ends with the connection.
        length = 0 if status == 100 else int(headers.get(b"content-length", len(rest)))
        # The answer to HEAD tells a length and has no body.
        length = 0 if not rest or rest.startswith(b"HTTP/1.1 ") else length
        yield status, top + rest[:length]
        stream = rest[length:]


def assert_answers(stream: bytes, most: int) -> None:
    found = [each for each in responses(stream) if each[0] != 100]
    assert len(found) <= most, found
    for status, answer in found:
        assert status in STATUSES
        assert MARK not in answer
        assert b"Traceback" not in answer


def test_bytes_that_are_damaged_requests_are_answered_or_refused(serve: Serve, exporter: FakeExporter) -> None:
    chance = seeded("http")
    port = serve(auth=BasicAuth({"a": HASHED}), scrapes_at_once=2).port
    for number in counted(REQUESTS, "http"):
        sent = chance.choice(WHOLE if chance.random() < 0.7 else WITH_BODY)
        sent = mutate(sent, chance) if chance.random() < 0.9 else chance.choice([random_bytes(chance), *NO_HTTP])
        # A damage can take out the mark between two requests, or put one in, so the most is what lines could be.
        assert_answers(talk(port, sent), sent.count(b"HTTP/") + 1)
        if number % 50 == 0:
            assert fetch(port, headers={"Authorization": "Basic YTpzZWNyZXQ="}).body == BODY
            assert fetch(port).status == 401
    assert exporter.most_at_once <= 2


@pytest.mark.parametrize("sent", [*WITH_BODY, *NO_HTTP])
def test_a_request_with_a_body_is_the_last_of_its_connection(serve: Serve, exporter: FakeExporter, sent: bytes) -> None:
    port = serve(auth=BasicAuth({"a": HASHED})).port
    # Bytes behind a request without a body are another, and may be refused as such.
    assert_answers(talk(port, sent), 1 + (sent in NO_HTTP))
    assert fetch(port, "/healthz", headers={"Authorization": "Basic YTpzZWNyZXQ="}).status == 200
    assert exporter.asked == []


def header_of(chance: random.Random, whole: tuple[str, ...]) -> str:
    made = mutate(chance.choice(whole).encode("latin-1"), chance) if chance.random() < 0.9 else random_bytes(chance)
    return made.decode("latin-1")


ONE_SERIES = Family("convoy_event_queue_total", [(("P", 'S"\\\n', "success"), 3.0)], 0.0, "test")
ACCEPTS = (
    "", "*/*", "text/plain;version=0.0.4", "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.5",
    "application/openmetrics-text;version=1.0.0;escaping=dots,*/*;q=0.1", "application/openmetrics-text; version=2.0.0",
    "application/openmetrics-text;version=1.0.7", "text/plain;version=abc", "text/plain;version=1.0.0;escaping=dots",
    "application/openmetrics-text;version=1.0.0;escaping=values", "text/plain;version=1.0.0;escaping=values",
)  # fmt: skip
CONTENT_TYPES = {
    *(f"{kind}; version={version}; charset=utf-8{escaping}"
      for kind, version in (("text/plain", "1.0.0"), ("application/openmetrics-text", "1.0.0"))
      for escaping in ("", "; escaping=underscores", "; escaping=allow-utf-8")),
    "text/plain; version=0.0.4; charset=utf-8",
}  # fmt: skip


def test_any_accept_header_gets_one_of_a_few_formats_with_the_same_series() -> None:
    chance = seeded("accept")
    text = TextExposition(share_seconds=0.0, aggregated=lambda: [ONE_SERIES])
    meter_provider([CATALOG[BUILD.name]], {BUILD.name: BUILD}.get, [text.reader], RESOURCE, {})
    series = parsed(text.render("")[1].decode())
    assert len(series) == 3
    for _ in counted(TEXTS // 4, "accept"):
        content_type, body = text.render(header_of(chance, ACCEPTS))
        assert content_type in CONTENT_TYPES
        assert parsed(body.decode(), openmetrics="openmetrics" in content_type) == series


CODINGS = ("gzip", "gzip;q=0.5, identity;q=1", "*;q=0", "x-gzip ; q=1.000", "br, deflate", "identity", "gzip;q=0.5;q=0")


def test_any_accept_encoding_is_a_yes_or_a_no_and_no_unless_gzip_may_be_meant() -> None:
    chance = seeded("accept-encoding")
    taken = 0
    for _ in counted(TEXTS, "accept-encoding"):
        header = header_of(chance, CODINGS)
        takes = accepts_gzip(header)
        assert not takes or "gzip" in header.lower() or "*" in header
        taken += takes
    assert taken


def test_any_authorization_is_refused_unless_it_says_a_user_and_the_password() -> None:
    chance = seeded("authorization")
    auth = BasicAuth({"a": HASHED})
    right = base64.b64encode(b"a:secret").decode()
    for _ in counted(TEXTS // 20, "authorization"):
        header = header_of(chance, (f"Basic {right}", f"basic  {right} ", "Basic Og==", "Bearer x", "Basic"))
        before = auth.remembers(header)
        allowed = auth.allows(header)
        assert allowed == (header.partition(" ")[0].lower() == "basic" and header.partition(" ")[2].strip() == right)
        assert auth.remembers(header) == allowed >= before
    assert auth.allows(f"Basic {right}")
