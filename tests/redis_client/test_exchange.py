"""One exchange with one server: what it was asked for comes in order, and nothing of it is left to the next one."""

import time
from contextlib import closing

import pytest

from otel_queue.errors import ReadError
from otel_queue.redis_client import ask, request
from tests.redis_client.scripted import encoded, scripted


def echo(*words: str) -> list[tuple[str, ...]]:
    return [("ECHO", word) for word in words]


def an_hour_from_now() -> float:
    return time.monotonic() + 3_600


def late(connection: int, words: list[bytes]) -> bytes:
    """On the first connection the reply to `late` comes only when something further is asked."""
    if words[1] == b"late":
        return b""
    return (encoded(b"late") if connection == 1 and words[1] == b"next" else b"") + encoded(words[1])


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


def test_answers_are_handed_out_while_the_server_still_works_on_the_rest() -> None:
    def halting(_: int, words: list[bytes]) -> bytes:
        return b"" if words[1] == b"slow" else encoded(words[1])

    wanted = [request(b"", echo("a", "b")), request(b"", echo("slow"))]
    with scripted(halting) as (_, link), closing(link.exchange(wanted, an_hour_from_now())) as answers:
        assert next(answers) == [b"a", b"b"]


def test_a_reply_that_comes_in_pieces_is_read_whole() -> None:
    long = b"x" * 300_000
    with scripted(lambda *_: encoded([long, 1])) as (_, link):
        assert ask(link, [request(b"", echo("a", "b"))], 60) == [[[long, 1], [long, 1]]]


@pytest.mark.parametrize(
    ("answer", "reason", "words"),
    [
        (encoded(b"a") * 2, "protocol", "more replies than commands"),
        (b"?what\r\n", "protocol", "Protocol error"),
        (b"$5\r\nab", "timeout", "the time for this collection is used up|timed out"),
        (None, "connection", "the server closed the connection in the middle of its replies|reset by peer"),
    ],
)
def test_a_server_that_does_not_keep_to_the_protocol_is_told_by_name_and_asked_anew(
    answer: bytes | None, reason: str, words: str
) -> None:
    def at_first(connection: int, sent: list[bytes]) -> bytes | None:
        return answer if connection == 1 else encoded(sent[1])

    with scripted(at_first) as (server, link):
        with pytest.raises(ReadError, match=f"redis://127.0.0.1:{server.port}/0: .*({words})") as refused:
            ask(link, [request(b"", echo("a"))], 0.3)
        assert refused.value.reason == reason
        assert ask(link, [request(b"", echo("a"))], 60) == [[b"a"]]
        assert [number for number, _ in server.received] == [1, 2]


def test_exchanges_that_go_well_share_one_connection_until_it_is_closed() -> None:
    with scripted(lambda _, words: encoded(words[1])) as (server, link):
        for _ in range(3):
            ask(link, [request(b"", echo("a"))], 60)
        link.close()
        ask(link, [request(b"", echo("a"))], 60)
        assert [number for number, _ in server.received] == [1, 1, 1, 2]
