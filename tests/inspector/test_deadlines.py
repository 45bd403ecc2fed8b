"""A deadline holds for whoever waits in line, and while a connection is opened."""

import threading
import time
from collections.abc import Callable

import pytest

from otel_queue.asynq.inspector import Inspector
from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.redis_client import RedisLink, ask, connect, request
from tests.servers.process import wait_until
from tests.servers.proxy import slow_proxy
from tests.servers.redis import redis_server

PING = request(b"", [("PING",)])


def reason_of(act: Callable[[], object]) -> list[str]:
    """Why it failed, as soon as it has: a thread of its own does it."""
    reasons: list[str] = []

    def run() -> None:
        try:
            act()
        except ReadError as error:
            reasons.append(error.reason)
        else:
            reasons.append("")

    threading.Thread(target=run, daemon=True).start()
    return reasons


def ping(link: RedisLink, timeout_seconds: float) -> Callable[[], object]:
    return lambda: ask(link, [PING], timeout_seconds)


def test_who_waits_behind_another_exchange_gives_up_at_its_own_deadline() -> None:
    with redis_server() as server:
        link = connect(RedisConfig(url=server.url))
        ping(link, 10)()
        server.pause()
        first = reason_of(ping(link, 3_600))
        wait_until(lambda: link._own.lock.locked(), what="the first exchange waits for Redis")  # type: ignore[attr-defined]
        others = [reason_of(ping(link, 0.1)) for _ in range(10)]
        wait_until(lambda: all(others), what="the others have given up", within=20)
        assert others == [["timeout"]] * 10
        assert not first
        server.resume()
        wait_until(lambda: first, what="the first has its answer")
        assert first == [""]


@pytest.mark.parametrize("tls", [False, True])
def test_a_connection_is_given_up_at_the_deadline_of_who_needs_it(tls: bool) -> None:
    """Its greeting is what is not answered: by itself it had an hour."""
    with redis_server(password="secret", tls=tls) as server:
        inspector = Inspector(
            connect(RedisConfig(url=server.url, connect_timeout_seconds=3_600, tls_ca_file=server.ca_file)),
            timeout_seconds=0.2,
        )
        server.pause()
        reasons = reason_of(inspector.queues)
        wait_until(lambda: reasons, what="it has given up", within=20)
        assert reasons == ["timeout"]
        server.resume()
        wait_until(lambda: inspector.queues() == [], what="it is read")


def test_a_connection_that_was_opened_too_late_is_there_for_the_next_exchange() -> None:
    """With its answers each 0.3 s late, the greeting (AUTH, SELECT) takes longer than an exchange may, 0.5 s."""
    with redis_server(password="secret") as server, slow_proxy(server.port, delay_seconds=0.15) as proxy:
        link = connect(RedisConfig(url=f"redis://:secret@127.0.0.1:{proxy.port}/1"))
        with pytest.raises(ReadError) as late:
            ping(link, 0.5)()
        assert late.value.reason == "timeout"
        wait_until(lambda: ping(link, 0.5)() == [[b"PONG"]], what="an exchange succeeds", within=20)
        link.close()


def test_a_deadline_that_has_passed_costs_no_connection() -> None:
    with redis_server() as server, server.client() as client:
        link = connect(RedisConfig(url=server.url))
        number = request(b"", [("CLIENT", "ID")])
        before = ask(link, [number], 10)
        with pytest.raises(ReadError, match="used up"):
            list(link.exchange([PING], time.monotonic() - 1))
        assert ask(link, [number], 10) == before
        assert client.ping()
        link.close()
