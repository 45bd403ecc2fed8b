"""Sentinels are asked for the master with the URL's credentials, and the master is greeted with its own."""

import contextlib
from collections.abc import Callable, Iterator

import pytest

from otel_queue.config import RedisConfig
from otel_queue.config.secret import Secret
from otel_queue.errors import ReadError
from otel_queue.redis_client import RedisLink, ask, connect, request
from tests.redis_client.scripted import Scripted, encoded, serving

PING = request(b"", [("PING",)])


def master(_: int, words: list[bytes]) -> bytes:
    return encoded(b"PONG") if words == [b"PING"] else b"+OK\r\n"


def sentinel_of(port: int) -> Callable[[int, list[bytes]], bytes]:
    state = {
        "name": "queues", "ip": "127.0.0.1", "port": str(port), "flags": "master", "num-other-sentinels": "0",
    }  # fmt: skip
    flat = [word.encode() for pair in state.items() for word in pair]

    def answer(_: int, words: list[bytes]) -> bytes:
        return encoded([flat]) if words == [b"SENTINEL", b"MASTERS"] else b"+OK\r\n"

    return answer


@pytest.fixture
def master_server() -> Iterator[Scripted]:
    with serving(master) as server:
        yield server


@pytest.fixture
def sentinel_server(master_server: Scripted) -> Iterator[Scripted]:
    with serving(sentinel_of(master_server.port)) as server:
        yield server


@contextlib.contextmanager
def linked(url: str, **config: object) -> Iterator[RedisLink]:
    with contextlib.closing(connect(RedisConfig(url=url, **config))) as link:  # type: ignore[arg-type]
        yield link


def said_to(server: Scripted) -> list[list[bytes]]:
    return [words for _, words in server.received]


SECOND = {"username": "reader", "password": Secret("secret")}
OTHER_WATCHER = {"sentinel_username": "other", "sentinel_password": Secret("known")}


@pytest.mark.parametrize(
    ("credentials", "config", "to_sentinel", "to_master"),
    [
        ("", {}, [], []),
        ("watcher:seen@", {}, [[b"AUTH", b"watcher", b"seen"]], []),
        (":seen@", {}, [[b"AUTH", b"seen"]], []),
        ("", SECOND, [], [[b"AUTH", b"reader", b"secret"]]),
        ("watcher:seen@", SECOND, [[b"AUTH", b"watcher", b"seen"]], [[b"AUTH", b"reader", b"secret"]]),
        ("watcher:seen@", OTHER_WATCHER, [[b"AUTH", b"other", b"known"]], []),
    ],
)
def test_each_hears_its_own_credentials_and_only_the_master_a_database(
    sentinel_server: Scripted,
    master_server: Scripted,
    credentials: str,
    config: dict[str, object],
    to_sentinel: list[list[bytes]],
    to_master: list[list[bytes]],
) -> None:
    with linked(f"redis-sentinel://{credentials}127.0.0.1:{sentinel_server.port}/3?master=queues", **config) as link:
        assert ask(link, [PING], 60) == [[b"PONG"]]
    assert said_to(sentinel_server) == [*to_sentinel, [b"SENTINEL", b"MASTERS"]]
    assert said_to(master_server) == [*to_master, [b"SELECT", b"3"], [b"PING"]]


def test_a_sentinel_that_does_not_answer_gives_way_to_the_next(
    sentinel_server: Scripted, master_server: Scripted
) -> None:
    with serving(lambda *_: b"") as mute:
        hosts = f"127.0.0.1:{mute.port},127.0.0.1:{sentinel_server.port}"
        with linked(f"redis-sentinel://{hosts}/0?master=queues", connect_timeout_seconds=0.2) as link:
            assert ask(link, [PING], 60) == [[b"PONG"]]


def test_a_master_that_is_not_known_is_named(sentinel_server: Scripted) -> None:
    with linked(f"redis-sentinel://127.0.0.1:{sentinel_server.port}/0?master=others") as link:
        with pytest.raises(ReadError, match="No master found for 'others'") as unknown:
            ask(link, [PING], 60)
        assert unknown.value.reason == "connection"
