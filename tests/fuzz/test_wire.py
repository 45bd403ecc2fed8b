"""A server that speaks broken RESP, hangs up or never answers: ReadError, and the next read works."""

import contextlib
import random
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import hiredis
import pytest

from otel_queue.asynq.inspector import Inspector
from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.redis_client import connect
from tests.fuzz.answers import answer
from tests.fuzz.budget import WIRE, inputs, seeded, tried
from tests.fuzz.mutation import mutate
from tests.fuzz.test_replies import METHODS, REASONS, checked, refusal

# Turns whole bytes of an answer into what is sent; None hangs up without another word.
Spoil = Callable[[bytes], bytes | None]


def encode(reply: Any) -> bytes:
    """A reply as Redis writes it."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    return b"*%d\r\n" % len(reply) + b"".join(map(encode, reply))


class WireServer:
    """Listens on loopback and answers with `spoil`ed bytes, then hangs up, unless nothing was spoiled."""

    def __init__(self) -> None:
        self.spoil: Spoil = lambda whole: whole
        self.stays_silent = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="wire-server", daemon=True)
        self._thread.start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self._answer(connection)

    def _answer(self, connection: socket.socket) -> None:
        reader: Any = hiredis.Reader()
        transaction: list[list[bytes]] = []
        while data := connection.recv(1 << 16):
            reader.feed(data)
            commands = []
            while (words := reader.gets()) is not False:
                transaction.append(words)
                # Answered as a whole once it has come as a whole.
                if transaction[0][0] != b"MULTI" or words[0] == b"EXEC":
                    commands += transaction
                    transaction = []
            if self.stays_silent:
                continue
            whole = b"".join(encode(reply) for reply in answer(commands))
            sent = self.spoil(whole)
            if sent is not None:
                connection.sendall(sent)
            if sent != whole:
                return


@pytest.fixture
def server() -> Iterator[WireServer]:
    server = WireServer()
    yield server
    server.close()


@contextlib.contextmanager
def inspecting(server: WireServer, *, path: str = "", timeout_seconds: float = 2.0) -> Iterator[Inspector]:
    url = f"redis://127.0.0.1:{server.port}{path}"
    reader = connect(RedisConfig(url=url, connect_timeout_seconds=timeout_seconds))
    try:
        yield Inspector(reader, timeout_seconds=timeout_seconds)
    finally:
        reader.close()


def damage(whole: bytes, chance: random.Random) -> bytes | None:
    """Broken, cut or none at all; sometimes what only RESP3 has."""
    kind = chance.randrange(8)
    if kind == 0:
        return None
    if kind == 1:
        return whole[: chance.randrange(len(whole) + 1)]
    if kind == 2:
        return whole + mutate(whole[:40], chance)
    if kind == 3:
        place = chance.randrange(len(whole) + 1)
        return whole[:place] + chance.choice(RESP3) + whole[place:]
    return mutate(whole, chance)


RESP3 = (
    b"%1\r\n+a\r\n:1\r\n", b"%1\r\n*0\r\n:1\r\n", b"~1\r\n*0\r\n", b"#t\r\n", b",inf\r\n", b",x\r\n",
    b"_\r\n", b"(" + b"9" * 99 + b"\r\n", b"=7\r\ntxt:abc\r\n", b">1\r\n:1\r\n", b"|1\r\n+a\r\n+b\r\n", b"*-1\r\n",
    b"*-7\r\n", b"$-7\r\n", b":\r\n", b"-\r\n", b"*4000000000\r\n", b"*1\r\n" * 20,
)  # fmt: skip


@pytest.mark.timeout(900)
def test_damaged_answers_are_read_errors_and_the_next_read_is_whole(server: WireServer) -> None:
    chance = seeded("wire")
    wanted = inputs(WIRE)
    spoiled = errors = 0

    def spoil(whole: bytes) -> bytes | None:
        nonlocal spoiled
        if chance.random() < 0.4:
            return whole
        spoiled += 1
        return damage(whole, chance)

    with inspecting(server, timeout_seconds=0.3) as inspector:
        while spoiled < wanted:
            server.spoil = spoil
            errors += checked(inspector) is None
            ask = chance.choice(METHODS)
            refused = refusal(lambda ask=ask: ask(inspector))  # type: ignore[misc]
            assert refused is None or refused.reason in REASONS
            if chance.random() < 0.05:
                server.spoil = lambda whole: whole
                checked(inspector)  # may find that the server has just hung up
                snapshot = checked(inspector)
                assert snapshot is not None
                assert len(snapshot.queues) == 3
    tried("wire", spoiled)
    assert errors


def test_damage_in_the_handshake_is_a_read_error(server: WireServer) -> None:
    """With a password and a database, redis-py reads before we do."""
    chance = seeded("handshake")
    server.spoil = lambda whole: damage(whole, chance) if chance.random() < 0.7 else whole
    errors = 0
    for _ in range(inputs(WIRE) // 4):
        reader = connect(RedisConfig(url=f"redis://:secret@127.0.0.1:{server.port}/3"))
        errors += checked(Inspector(reader)) is None
        reader.close()
    tried("handshake", inputs(WIRE) // 4)
    assert errors


def test_a_server_that_never_answers_is_a_timeout_within_the_given_time(server: WireServer) -> None:
    server.stays_silent = True
    with inspecting(server, timeout_seconds=0.05) as inspector:
        for _ in range(2):
            started = time.monotonic()
            with pytest.raises(ReadError) as silent:
                inspector.snapshot()
            assert silent.value.reason == "timeout"
            assert time.monotonic() - started >= 0.05
    with inspecting(server, path="/3", timeout_seconds=0.05) as inspector:
        with pytest.raises(ReadError) as silent:
            inspector.snapshot()
        assert silent.value.reason == "timeout"


def test_a_server_that_hangs_up_at_once_is_a_connection_error(server: WireServer) -> None:
    server.spoil = lambda whole: None
    with inspecting(server) as inspector, pytest.raises(ReadError) as gone:
        inspector.snapshot()
    assert gone.value.reason == "connection"


def test_a_server_that_says_more_than_it_was_asked_is_a_protocol_error(server: WireServer) -> None:
    server.spoil = lambda whole: whole + b"+MORE\r\n"
    with inspecting(server) as inspector, pytest.raises(ReadError) as more:
        inspector.queues()
    assert more.value.reason == "protocol"


@pytest.mark.parametrize(
    "broken", [b"%1\r\n*0\r\n:1\r\n", b"*4000000000\r\n", b"?\r\n", b"HTTP/1.1 400 Bad Request\r\n"]
)
def test_bytes_that_cannot_be_a_reply_are_a_protocol_error(server: WireServer, broken: bytes) -> None:
    server.spoil = lambda whole: broken
    with inspecting(server) as inspector, pytest.raises(ReadError) as refused:
        inspector.queues()
    assert refused.value.reason == "protocol"
