"""One exchange with one server: what it was asked for comes in order, and nothing of it is left to the next one."""

import time
from contextlib import closing

import pytest

from otel_queue.errors import ReadError
from otel_queue.redis_client import ask, request
from tests.redis_client.scripted import bulk, scripted


def echo(*words: str) -> list[tuple[str, ...]]:
    return [("ECHO", word) for word in words]


def an_hour_from_now() -> float:
    return time.monotonic() + 3_600


def late(connection: int, words: list[bytes]) -> bytes:
    """On the first connection the reply to `late` comes only when something further is asked."""
    if words[1] == b"late":
        return b""
    return (bulk(b"late") if connection == 1 and words[1] == b"next" else b"") + bulk(words[1])


def test_an_exchange_that_its_caller_leaves_early_leaves_no_reply_to_the_next_one() -> None:
    with scripted(late) as (server, link):
        requests = [request(b"", echo("first")), request(b"", echo("late"))]
        with closing(link.exchange(requests, an_hour_from_now())) as answers:
            assert next(answers) == [b"first"]
        assert ask(link, [request(b"", echo("next"))], 3_600) == [[b"next"]]
        assert server.received[-1] == (2, [b"ECHO", b"next"])


def test_an_exchange_that_ran_out_of_time_leaves_no_reply_to_the_next_one() -> None:
    with scripted(late) as (_, link):
        with pytest.raises(ReadError) as out_of_time:
            ask(link, [request(b"", echo("late"))], 0.1)
        assert out_of_time.value.reason == "timeout"
        assert ask(link, [request(b"", echo("next"))], 3_600) == [[b"next"]]
