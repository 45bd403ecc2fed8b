"""What is said to a server before anything is asked: only what the configuration asks for."""

import os

import pytest

from otel_queue.config.secret import Secret
from otel_queue.errors import ReadError
from otel_queue.redis_client import ask, request
from tests.redis_client.scripted import encoded, scripted

PING = request(b"", [("PING",)])


def obliging(_: int, words: list[bytes]) -> bytes:
    return encoded(b"PONG") if words == [b"PING"] else b"+OK\r\n"


@pytest.mark.parametrize(
    ("url", "config", "said"),
    [
        ("redis://127.0.0.1:{port}", {}, []),
        ("redis://127.0.0.1:{port}/5", {}, [[b"SELECT", b"5"]]),
        ("redis://:first@127.0.0.1:{port}", {}, [[b"AUTH", b"first"]]),
        ("redis://reader:first@127.0.0.1:{port}/5", {}, [[b"AUTH", b"reader", b"first"], [b"SELECT", b"5"]]),
        ("redis://127.0.0.1:{port}", {"password": Secret("second")}, [[b"AUTH", b"second"]]),
        (
            "redis://reader:first@127.0.0.1:{port}",
            {"username": "other", "password": Secret("second")},
            [[b"AUTH", b"other", b"second"]],
        ),
    ],
)
def test_credentials_and_database_are_told_and_nothing_else(
    url: str, config: dict[str, object], said: list[list[bytes]]
) -> None:
    with scripted(obliging, url, **config) as (server, link):
        assert ask(link, [PING], 60) == [[b"PONG"]]
        assert [words for _, words in server.received] == [*said, [b"PING"]]


def test_a_server_that_broke_off_in_its_handshake_is_not_taken_for_ready() -> None:
    def refusing(connection: int, words: list[bytes]) -> bytes:
        return b"-WRONGPASS invalid\r\n" if connection == 1 else obliging(connection, words)

    with scripted(refusing, "redis://:secret@127.0.0.1:{port}") as (server, link):
        with pytest.raises(ReadError) as refused:
            ask(link, [PING], 60)
        assert refused.value.reason == "auth"
        assert ask(link, [PING], 60) == [[b"PONG"]]
        assert [number for number, _ in server.received] == [1, 2, 2]


def test_a_handshake_may_take_the_configured_time_and_no_more() -> None:
    with scripted(lambda *_: b"", "redis://:secret@127.0.0.1:{port}", connect_timeout_seconds=0.1) as (_, link):
        with pytest.raises(ReadError) as refused:
            ask(link, [PING], 3_600)
        assert refused.value.reason == "timeout"


@pytest.mark.parametrize(
    "form", ["redis-sentinel://127.0.0.1:{port}/0?master=queues", "redis-cluster://127.0.0.1:{port}"]
)
def test_sentinels_and_cluster_nodes_that_do_not_answer_are_given_up_after_the_configured_time(form: str) -> None:
    with scripted(lambda *_: b"", form, connect_timeout_seconds=0.1) as (server, link):
        with pytest.raises(ReadError) as refused:
            ask(link, [PING], 3_600)
        assert refused.value.reason in ("timeout", "connection")
        assert len(server.received) <= 2


def test_a_forked_process_opens_a_connection_of_its_own() -> None:
    with scripted(obliging) as (server, link):
        ask(link, [PING], 60)
        child = os.fork()
        if child == 0:
            os._exit(0 if ask(link, [PING], 60) == [[b"PONG"]] else 1)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
        ask(link, [PING], 60)
        assert [number for number, _ in server.received] == [1, 2, 1]
