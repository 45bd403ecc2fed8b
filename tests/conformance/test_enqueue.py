"""What a client's calls leave in Redis, and how lists page through it."""

import pytest

from otel_queue.asynq.message import decode_task_message
from tests.asynq_peer import AsynqError
from tests.conformance.lab import Lab
from tests.conformance.same import assert_queue_is_same, assert_same_groups, assert_same_tasks


@pytest.fixture
def filled(lab: Lab) -> Lab:
    """One task of every kind that a client can make; two of its calls are refused."""
    lab.enqueue("ok", task_id="t1", payload=b"p1", headers={"k": "v"})
    lab.enqueue("ok", task_id="t2", payload=b"p2")
    lab.enqueue("ok", task_id="t3", process_in=3600)
    lab.enqueue("ok", task_id="t4", payload=b"p4", unique=60)
    with pytest.raises(AsynqError, match="task already exists"):
        lab.enqueue("ok", payload=b"p4", unique=60)
    with pytest.raises(AsynqError, match="task ID conflicts with another task"):
        lab.enqueue("ok", task_id="t1", payload=b"other", unique=60)
    lab.enqueue("ok", task_id="g1", payload=b"p5", group="G")
    lab.enqueue("ok", task_id="g2", payload=b"p6", group="G", unique=60)
    lab.enqueue("ok", task_id="sg", payload=b"p7", group="G", process_in=3600)
    lab.enqueue("ok", task_id="nil1", payload=None, unique=60)
    return lab


def test_every_way_to_enqueue_is_counted_in_its_state(filled: Lab) -> None:
    go = filled.go_info("default")
    counts = ("pending", "scheduled", "aggregating", "groups", "size", "active", "processed")
    assert [go[count] for count in counts] == [4, 2, 2, 1, 8, 0, 0]

    assert_queue_is_same(filled, "default")
    assert assert_same_groups(filled, "default") == {"G": 2}


def test_a_refused_task_id_leaves_its_unique_lock_behind(filled: Lab) -> None:
    locks = filled.stored_keys("asynq:{default}:unique:*")

    assert len(locks) == 4
    assert filled.redis.get("asynq:{default}:unique:ok:795f3202b17cb6bc3d4b771d8c6c9eaf") == b"t1"


def test_a_nil_payload_has_an_empty_hash_in_its_lock(filled: Lab) -> None:
    assert filled.redis.get("asynq:{default}:unique:ok:") == b"nil1"


def test_new_tasks_enter_pending_at_the_left(filled: Lab) -> None:
    assert filled.ids("asynq:{default}:pending") == ["nil1", "t4", "t2", "t1"]


def test_a_unique_task_of_a_group_does_not_record_its_lock(filled: Lab) -> None:
    assert not filled.redis.hexists("asynq:{default}:t:g2", "unique_key")
    assert filled.redis.hexists("asynq:{default}:t:t4", "unique_key")


def test_a_scheduled_task_of_a_group_records_it_in_its_message_only(filled: Lab) -> None:
    assert not filled.redis.hexists("asynq:{default}:t:sg", "group")
    message = filled.redis.hget("asynq:{default}:t:sg", "msg")
    assert isinstance(message, bytes)
    assert decode_task_message(message).group_key == "G"


def test_the_bytes_of_a_message_are_those_of_the_wire_format(filled: Lab) -> None:
    message = filled.redis.hget("asynq:{default}:t:t1", "msg")

    assert message == bytes.fromhex("0a026f6b120270311a027431220764656661756c74281940880e7a060a016b120176")


@pytest.mark.parametrize(
    ("page_size", "page", "expected"),
    [(2, 1, ["t1", "t2"]), (2, 2, ["t4", "nil1"]), (2, 3, []), (30, 1, ["t1", "t2", "t4", "nil1"])],
)
def test_pending_is_paged_from_the_next_to_run(filled: Lab, page_size: int, page: int, expected: list[str]) -> None:
    assert assert_same_tasks(filled, "default", "pending", page_size=page_size, page=page) == expected


@pytest.mark.parametrize(
    ("page_size", "page", "expected"), [(0, 1, ["t1", "t2", "t4", "nil1"]), (3, 0, ["t2", "t4", "nil1"])]
)
def test_asynq_gives_everything_for_size_zero_and_the_newest_for_page_zero(
    filled: Lab, page_size: int, page: int, expected: list[str]
) -> None:
    tasks = filled.go_tasks("default", "pending", page_size=page_size, page=page)

    assert [task["id"] for task in tasks] == expected


def test_scheduled_is_ordered_by_time_then_id(filled: Lab) -> None:
    # Both are due in the same second, unless that second ended between the two calls.
    filled.redis.zadd("asynq:{default}:scheduled", {"t3": 4102444800, "sg": 4102444800})

    assert assert_same_tasks(filled, "default", "scheduled") == ["sg", "t3"]


def test_asynq_lists_a_group_by_the_time_of_joining(filled: Lab) -> None:
    tasks = filled.go_tasks("default", "aggregating", group="G")

    assert [(task["id"], task["state"], task["group"]) for task in tasks] == [
        ("g1", "aggregating", "G"),
        ("g2", "aggregating", "G"),
    ]
