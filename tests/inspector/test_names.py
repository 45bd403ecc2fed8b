"""Queue, group and task names are bytes that asynq does not validate: each is read as it is."""

import itertools
import time

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.message import TaskMessage, encode_task_message
from tests.inspector.filled import assert_filled, fill_queue

NAMES = [
    b"",
    b" ",
    b" padded ",
    b"a:b",
    b"{a}",
    b"a}b",
    b"a{b}c",
    b"}first",
    b"{",
    b"}",
    b"UPPER",
    b"with/slash",
    b"line\nbreak\r\n",
    b"nul\x00",
    "Grün 🚀".encode(),
    b"\xff\xfe",
    b"half \xc3",
    b"surrogate \xed\xa0\x80",
    b'quote"\\',
    b"back\\slash",
    rb"\xff\xfe",
    rb"\\xff\xfe",
    b"\xff\\xfe",
    b"\\\xff\xfe",
    b"x" * 10_000,
    b"a}:t:x{b",
]


def put(client: redis.Redis, queue: bytes) -> None:
    """One pending task and two in a group, all with the queue's own name."""
    client.sadd(keys.QUEUES, queue)
    message = encode_task_message(TaskMessage("type", b"", "id"))
    client.lpush(keys.queue_key(queue, "pending"), queue)
    client.hset(keys.task(queue, queue), mapping={"msg": message, "pending_since": str(time.time_ns())})
    client.sadd(keys.queue_key(queue, "groups"), queue)
    client.zadd(keys.group(queue, queue), {"g1": 1, "g2": 2})
    client.set(keys.processed(queue), 7)


@pytest.mark.parametrize("name", NAMES)
def test_a_queue_is_read_whatever_its_name(inspector: Inspector, client: redis.Redis, name: bytes) -> None:
    put(client, name)
    shown = keys.display(name)
    shown.encode()
    for _ in range(2):
        snapshot = inspector.snapshot()
        [info] = snapshot.queues
        assert info.queue == shown
        assert (info.pending, info.groups, info.aggregating, info.size) == (1, 1, 2, 3)
        assert (info.processed_total, info.latency is None) == (7, False)
        assert snapshot.failures == {}
    assert inspector.queues() == [shown]
    assert inspector.queue_info(name).size == 3
    assert inspector.groups(name) == {shown: 2}
    assert [(found.id, found.queue, found.type) for found in inspector.tasks(name, "pending")] == [
        (shown, shown, "type")
    ]
    assert inspector.memory_usage([name])[shown]
    assert inspector.sample_task_types([name])[shown]["pending"] == {"type": 1}
    assert len(inspector.history(name, 2)) == 2


def test_all_these_names_together_disturb_nobody(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    for name in NAMES:
        put(client, name)
    snapshot = inspector.snapshot()
    assert len(snapshot.queues) == len(NAMES) + 1
    assert snapshot.failures == {}
    assert_filled(next(info for info in snapshot.queues if info.queue == "filled"))
    assert [info.queue for info in snapshot.queues] == sorted(info.queue for info in snapshot.queues)


def test_no_two_names_are_shown_as_one() -> None:
    """Of all short names out of the bytes that escapes are made of, and what most names are is shown as it is."""
    parts = (b"\\", b"x", b"f", b"\xff", b"xff", b"\\xff")
    made = {b"".join(chosen) for size in range(6) for chosen in itertools.product(parts, repeat=size)}
    assert len({keys.display(name) for name in made}) == len(made)
    assert keys.display(b"back\\slash \\x41") == "back\\slash \\x41"
    assert keys.display(b"spelt \\xff") == "spelt \\\\xff"
    assert keys.display(b"\\ and \xff") == "\\\\ and \\xff"


def test_a_name_from_a_command_line_finds_a_queue_that_is_not_utf8(inspector: Inspector, client: redis.Redis) -> None:
    put(client, b"\xff\xfe")
    as_an_argument = b"\xff\xfe".decode("utf-8", "surrogateescape")
    assert inspector.queue_info(as_an_argument).pending == 1


def test_a_name_that_collides_with_another_queues_task_key_costs_only_what_is_shared(
    inspector: Inspector, client: redis.Redis
) -> None:
    """The processed counter of queue `a}:t:x{b` is the key that a crafted task ID in queue `a` would have too."""
    fill_queue(client)
    crafted = b"filled}:t:x{b"
    client.sadd(keys.QUEUES, crafted)
    client.hset(keys.queue_key(crafted, "processed"), "msg", "x")
    snapshot = inspector.snapshot()
    by_name = {info.queue: info for info in snapshot.queues}
    assert_filled(by_name["filled"])
    assert by_name[crafted.decode()].processed_total is None
    assert snapshot.failures == {"wrong_type": 1}
