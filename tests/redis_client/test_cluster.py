"""A cluster as one link, with nodes that answer as a test says: who is asked for what, and again."""

import contextlib
import time
from collections.abc import Callable, Iterator

import pytest
from redis.crc import key_slot

from otel_queue.config import RedisConfig
from otel_queue.config.secret import Secret
from otel_queue.errors import ReadError
from otel_queue.redis_client import ErrorReply, RedisLink, ask, connect, request
from tests.redis_client.scripted import Scripted, encoded, serving

HALF = 8_192
LOW = next(b"%d" % number for number in range(100) if key_slot(b"%d" % number) < HALF)
HIGH = next(b"%d" % number for number in range(100) if key_slot(b"%d" % number) >= HALF)

GetAnswer = Callable[[str, bytes], bytes | None]


class Nodes:
    """Two nodes, `low` and `high`, for half of the slots each; `get` answers for a node and a key."""

    def __init__(self) -> None:
        self.get: GetAnswer = lambda node, key: encoded(node.encode() + b" has " + key)
        self.slots: list[tuple[int, int, str]] = [(0, HALF - 1, "low"), (HALF, 16_383, "high")]
        self.servers: dict[str, Scripted] = {}

    def answer(self, node: str) -> Callable[[int, list[bytes]], bytes | None]:
        def answer(_: int, words: list[bytes]) -> bytes | None:
            if words[0] == b"GET":
                return self.get(node, words[1])
            if words[:2] == [b"CLUSTER", b"SLOTS"]:
                return encoded([self._range(*each) for each in self.slots])
            return b"+OK\r\n" if words[0] == b"AUTH" else b"-ERR unexpected\r\n"

        return answer

    def _range(self, first: int, last: int, node: str) -> list[object]:
        return [first, last, [b"127.0.0.1", self.servers[node].port, node.encode()]]

    def gets(self, node: str) -> list[bytes]:
        """The keys that the node was asked for."""
        return [words[1] for _, words in self.servers[node].received if words[0] == b"GET"]

    def others(self) -> set[bytes]:
        """The other commands that were sent."""
        return {words[0] for server in self.servers.values() for _, words in server.received} - {b"GET"}


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    nodes = Nodes()
    with contextlib.ExitStack() as stack:
        for name in ("low", "high"):
            nodes.servers[name] = stack.enter_context(serving(nodes.answer(name)))
        yield nodes


@contextlib.contextmanager
def linked(nodes: Nodes, **config: object) -> Iterator[RedisLink]:
    startup = ",".join(f"127.0.0.1:{server.port}" for server in nodes.servers.values())
    link = connect(RedisConfig(url=f"redis-cluster://{startup}", **config))  # type: ignore[arg-type]
    with contextlib.closing(link):
        yield link


def exchanged(link: RedisLink, *keys: bytes) -> list[object]:
    """The answer for each key, or the reason of its error."""
    wanted = [request(key, [("GET", key)]) for key in keys]
    with contextlib.closing(link.exchange(wanted, time.monotonic() + 60)) as answers:
        return [answer.reason if isinstance(answer, ReadError) else answer[0] for answer in answers]


def test_each_node_is_asked_for_its_slots_and_the_answers_come_in_order(nodes: Nodes) -> None:
    with linked(nodes) as link:
        assert exchanged(link, HIGH, LOW, HIGH) == [b"high has " + HIGH, b"low has " + LOW, b"high has " + HIGH]
    assert (nodes.gets("low"), nodes.gets("high")) == ([LOW], [HIGH, HIGH])
    assert nodes.others() == {b"CLUSTER"}


def test_the_slots_are_asked_for_once_and_the_connections_are_kept(nodes: Nodes) -> None:
    with linked(nodes) as link:
        for _ in range(3):
            exchanged(link, LOW, HIGH)
        assert sum(words[0] == b"CLUSTER" for each in nodes.servers.values() for _, words in each.received) == 1
        assert len({number for number, words in nodes.servers["low"].received if words[0] == b"GET"}) == 1


def test_credentials_are_told_to_every_node(nodes: Nodes) -> None:
    with linked(nodes, username="reader", password=Secret("secret")) as link:
        exchanged(link, LOW, HIGH)
    for server in nodes.servers.values():
        assert [b"AUTH", b"reader", b"secret"] in [words for _, words in server.received]


def test_only_what_has_moved_is_asked_again_where_it_went(nodes: Nodes) -> None:
    with linked(nodes) as link:
        exchanged(link, LOW, HIGH)
        nodes.slots = [(0, 16_383, "high")]
        nodes.get = lambda node, key: b"-MOVED 1 127.0.0.1:1\r\n" if node == "low" else encoded(b"high now has " + key)
        assert exchanged(link, HIGH, LOW) == [b"high now has " + HIGH, b"high now has " + LOW]
    assert nodes.gets("low") == [LOW, LOW]
    assert nodes.gets("high") == [HIGH, HIGH, LOW]


def test_what_moves_all_the_time_is_asked_twice_and_then_told(nodes: Nodes) -> None:
    nodes.get = lambda node, key: b"-MOVED 1 127.0.0.1:1\r\n"
    with linked(nodes) as link:
        [answer] = exchanged(link, LOW)
    assert isinstance(answer, ErrorReply)
    assert nodes.gets("low") == [LOW, LOW]


def test_another_error_of_redis_is_not_asked_again(nodes: Nodes) -> None:
    nodes.get = lambda node, key: b"-WRONGTYPE wrong kind\r\n"
    with linked(nodes) as link:
        assert [str(answer) for answer in exchanged(link, LOW)] == ["WRONGTYPE wrong kind"]
    assert nodes.gets("low") == [LOW]


def test_a_slot_that_nobody_serves_costs_its_own_part_only(nodes: Nodes) -> None:
    nodes.slots = nodes.slots[:1]
    with linked(nodes) as link:
        assert exchanged(link, HIGH, LOW) == ["cluster_down", b"low has " + LOW]


def test_a_node_that_hangs_up_costs_its_own_part_and_is_asked_last_until_it_answers(nodes: Nodes) -> None:
    order: list[str] = []

    def get(node: str, key: bytes) -> bytes | None:
        order.append(node)
        return None if node == "low" and len(order) < 4 else encoded(key)

    nodes.get = get
    with linked(nodes) as link:
        assert exchanged(link, LOW, HIGH) == ["connection", HIGH]
        assert exchanged(link, LOW, HIGH) == [LOW, HIGH]
        assert exchanged(link, LOW, HIGH) == [LOW, HIGH]
    # In the order of the requests; the one that failed is last once, and in its place again when it has answered.
    assert order == ["low", "high", "high", "low", "low", "high"]


def test_after_a_failure_the_slots_are_asked_for_again(nodes: Nodes) -> None:
    with linked(nodes) as link:
        nodes.get = lambda node, key: None if node == "low" else encoded(key)
        assert exchanged(link, LOW, HIGH) == ["connection", HIGH]
        nodes.slots = [(0, 16_383, "high")]
        assert exchanged(link, LOW, HIGH) == [LOW, HIGH]


def test_when_no_node_answers_the_exchange_fails_with_the_first_reason(nodes: Nodes) -> None:
    nodes.get = lambda node, key: None
    with linked(nodes) as link, pytest.raises(ReadError, match=r"127\.0\.0\.1") as refused:
        ask(link, [request(LOW, [("GET", LOW)]), request(HIGH, [("GET", HIGH)])], 60)
    assert refused.value.reason == "connection"
    assert str(nodes.servers["low"].port) in str(refused.value)


def test_a_closed_link_asks_for_the_slots_and_connects_again(nodes: Nodes) -> None:
    with linked(nodes) as link:
        exchanged(link, LOW)
        link.close()
        link.close()
        assert exchanged(link, LOW) == [b"low has " + LOW]
    assert len({number for number, words in nodes.servers["low"].received if words[0] == b"GET"}) == 2
