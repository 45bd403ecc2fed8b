import time
from collections import Counter

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.tasks import LISTED_STATES, MOST_TYPES, OTHER_TYPES
from otel_queue.demo.broker import Broker
from otel_queue.errors import QueueNotFoundError, ReadError
from tests.inspector.filled import fill_queue, inspecting, task
from tests.servers.redis import redis_server


def ids(inspector: Inspector, state: str, page_size: int = 30, page: int = 1) -> list[str]:
    return [found.id for found in inspector.tasks("filled", state, page_size, page)]


def test_every_state_lists_its_tasks_with_what_asynq_stored(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    found = {state: inspector.tasks("filled", state) for state in LISTED_STATES}
    assert {state: [item.id for item in items] for state, items in found.items()} == {
        "pending": ["t5", "t6"],
        "active": ["t4"],
        "scheduled": ["later"],
        "retry": ["t0"],
        "archived": ["t1"],
        "completed": ["t2"],
    }
    [retry] = found["retry"]
    assert (retry.type, retry.payload, retry.queue, retry.state) == ("type:t0", b"payload", "filled", "retry")
    assert (retry.max_retry, retry.retried, retry.last_err) == (25, 1, "try again")
    assert retry.next_process_at is not None
    assert 500 < retry.next_process_at - time.time() <= 600
    assert retry.last_failed_at is not None
    [completed] = found["completed"]
    assert completed.completed_at is not None
    assert (completed.last_failed_at, completed.next_process_at, completed.group) == (None, None, None)


def test_a_tasks_headers_and_group_are_told(inspector: Inspector, client: redis.Redis) -> None:
    Broker(client, time.time).enqueue(task("t", headers={"traceparent": "00-1-2-01"}))
    [found] = inspector.tasks("filled", "pending")
    assert (found.headers, found.group) == ({"traceparent": "00-1-2-01"}, None)


def test_pages_are_oldest_first_and_empty_past_the_end(inspector: Inspector, client: redis.Redis) -> None:
    broker = Broker(client, time.time)
    names = [f"t{number}" for number in range(5)]
    for number, name in enumerate(names):
        broker.enqueue(task(name))
        client.zadd(keys.queue_key("filled", "archived"), {name: number})
    for state in ("pending", "archived"):
        pages = [ids(inspector, state, 2, page) for page in (1, 2, 3, 4, 1000)]
        assert pages == [names[:2], names[2:4], names[4:], [], []]
        assert ids(inspector, state) == names


@pytest.mark.parametrize("state", LISTED_STATES)
def test_a_state_without_tasks_is_an_empty_page(inspector: Inspector, client: redis.Redis, state: str) -> None:
    client.sadd(keys.QUEUES, "filled")
    assert inspector.tasks("filled", state) == []


@pytest.mark.parametrize("state", LISTED_STATES)
def test_an_unlisted_queue_is_not_found(inspector: Inspector, client: redis.Redis, state: str) -> None:
    with pytest.raises(QueueNotFoundError):
        inspector.tasks("nope", state)


@pytest.mark.parametrize("state", ["aggregating", "", "PENDING", "t:x"])
def test_a_state_that_cannot_be_listed_is_a_value_error(inspector: Inspector, state: str) -> None:
    with pytest.raises(ValueError, match="state must be one of pending"):
        inspector.tasks("filled", state)


@pytest.mark.parametrize(("page_size", "page"), [(0, 1), (1, 0), (-1, 1), (1, -5)])
def test_pages_below_one_are_a_value_error(inspector: Inspector, page_size: int, page: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        inspector.tasks("filled", "pending", page_size, page)


@pytest.mark.parametrize("message", [b"", b"{", b'{"Type":"old"}', b"\xff" * 10, b"\x0a\xff\xff\xff\xff\x0f"])
def test_a_message_that_is_no_protobuf_leaves_the_task_without_a_type(
    inspector: Inspector, client: redis.Redis, message: bytes
) -> None:
    fill_queue(client)
    client.hset(keys.task("filled", "t5"), "msg", message)
    broken, whole = inspector.tasks("filled", "pending")
    assert broken.id == "t5"
    # Nothing at all is a message of proto3, with nothing in it.
    assert (broken.type, broken.payload) == (("", b"") if message == b"" else (None, None))
    assert (whole.id, whole.type) == ("t6", "type:t6")


def test_members_without_a_hash_a_message_or_of_another_type_have_no_type(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    pending = keys.queue_key("filled", "pending")
    client.rpush(pending, "ghost", "string", "gone")
    client.hset(keys.task("filled", "ghost"), "state", "active")
    client.set(keys.task("filled", "string"), "x")
    found = inspector.tasks("filled", "pending")
    assert [(item.id, item.type) for item in found] == [
        ("gone", None), ("string", None), ("ghost", None), ("t5", "type:t5"), ("t6", "type:t6"),
    ]  # fmt: skip


@pytest.mark.parametrize("state", LISTED_STATES)
def test_a_state_whose_key_has_another_type_is_an_error(inspector: Inspector, client: redis.Redis, state: str) -> None:
    fill_queue(client)
    client.delete(keys.queue_key("filled", state))
    client.set(keys.queue_key("filled", state), "x")
    with pytest.raises(ReadError) as refused:
        inspector.tasks("filled", state)
    assert refused.value.reason == "wrong_type"


@pytest.mark.parametrize(("offset", "orphaned"), [(-60, True), (-1, True), (60, False)])
def test_an_active_task_is_orphaned_from_the_end_of_its_lease_on(
    inspector: Inspector, client: redis.Redis, offset: int, orphaned: bool
) -> None:
    fill_queue(client)
    client.zadd(keys.queue_key("filled", "lease"), {"t4": int(time.time()) + offset})
    assert [found.is_orphaned for found in inspector.tasks("filled", "active")] == [orphaned]


@pytest.mark.parametrize("break_lease", ["absent", "wrong type"])
def test_an_active_task_whose_lease_cannot_be_read_is_not_called_orphaned(
    inspector: Inspector, client: redis.Redis, break_lease: str
) -> None:
    fill_queue(client)
    client.delete(keys.queue_key("filled", "lease"))
    if break_lease == "wrong type":
        client.set(keys.queue_key("filled", "lease"), "x")
    [active] = inspector.tasks("filled", "active")
    assert (active.type, active.is_orphaned) == ("type:t4", False)


def test_an_orphan_is_found_by_our_clock_where_redis_does_not_tell_the_time() -> None:
    with redis_server(args=["--rename-command", "TIME", ""]) as server:
        with server.client() as client:
            fill_queue(client)
            client.zadd(keys.queue_key("filled", "lease"), {"t4": int(time.time()) - 5})
        with inspecting(server.url) as inspector:
            assert [found.is_orphaned for found in inspector.tasks("filled", "active")] == [True]


def test_task_types_are_counted_per_queue_and_state(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    client.sadd(keys.QUEUES, "empty")
    found = inspector.sample_task_types()
    assert found == {
        "filled": {
            "pending": {"type:t5": 1, "type:t6": 1},
            "active": {"type:t4": 1},
            "scheduled": {"type:later": 1},
            "retry": {"type:t0": 1},
            "archived": {"type:t1": 1},
            "completed": {"type:t2": 1},
        },
        "empty": {state: {} for state in LISTED_STATES},
    }


def test_a_sample_takes_the_tasks_that_run_next(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    assert inspector.sample_task_types(["filled"], size=1)["filled"]["pending"] == {"type:t5": 1}


def test_types_beyond_the_most_frequent_are_counted_together(inspector: Inspector, client: redis.Redis) -> None:
    broker = Broker(client, time.time)
    for number in range(MOST_TYPES + 7):
        broker.enqueue(task(f"{number}"))
    broker.enqueue(task("0-again"))
    found = inspector.sample_task_types(["filled"])["filled"]["pending"]
    assert len(found) == MOST_TYPES + 1
    assert found[OTHER_TYPES] == 8
    assert sum(found.values()) == MOST_TYPES + 8


@pytest.mark.parametrize("size", [0, -1])
def test_a_sample_of_nothing_is_a_value_error(inspector: Inspector, size: int) -> None:
    with pytest.raises(ValueError, match=f"at least 1, not {size}"):
        inspector.sample_task_types(size=size)


def test_a_task_that_ended_since_it_was_listed_is_no_failure_of_the_sample(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    client.delete(keys.task("filled", "t0"))
    failures: Counter[str] = Counter()
    found = inspector.sample_task_types(failures=failures)["filled"]
    assert "type:t0" not in found["pending"]
    assert not failures


def test_broken_tasks_and_states_are_left_out_of_the_sample_and_counted(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    client.hset(keys.task("filled", "t5"), "msg", b"\xff")
    client.delete(keys.task("filled", "t0"), keys.queue_key("filled", "archived"))  # t0 has ended, as far as it shows
    client.set(keys.queue_key("filled", "archived"), "x")
    failures: Counter[str] = Counter()
    found = inspector.sample_task_types(failures=failures)["filled"]
    assert found["pending"] == {"type:t6": 1}
    assert found["retry"] == {}
    assert "archived" not in found
    assert failures == {"undecodable": 1, "wrong_type": 1}
