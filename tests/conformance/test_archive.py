"""The archive holds 9,999 tasks: what asynq trims, and what it leaves behind."""

import time
from typing import cast

import pytest

from tests.asynq_peer import AsynqError
from tests.conformance.lab import Lab
from tests.conformance.same import assert_queue_is_same
from tests.servers.process import wait_until

ARCHIVED = "asynq:{w}:archived"
LIMIT = 9_999


def preload(lab: Lab, count: int, archived_at: int) -> None:
    """`count` archived tasks, copies of one that asynq wrote."""
    lab.enqueue("ok", queue="w", task_id="model", payload=b"x")
    lab.go.call("archive_task", queue="w", id="model")
    model = cast(dict[bytes, bytes], lab.redis.hgetall("asynq:{w}:t:model"))
    pipeline = lab.redis.pipeline(transaction=False)
    pipeline.delete("asynq:{w}:t:model", ARCHIVED)
    for number in range(count):
        pipeline.hset(f"asynq:{{w}}:t:z{number:05}", mapping=cast(dict[str | bytes, bytes], model))
    pipeline.zadd(ARCHIVED, {f"z{number:05}": archived_at for number in range(count)})
    pipeline.execute()


def test_a_server_that_archives_keeps_the_limit_and_deletes_what_it_trims(lab: Lab) -> None:
    preload(lab, LIMIT - 1, int(time.time()) - 60)
    for number in range(3):
        lab.enqueue("fail", queue="w", task_id=f"a{number}", max_retry=0)
    lab.start_server(queues={"w": 1})

    lab.wait_for_info("w", pending=0, active=0, archived=LIMIT, failed=3)

    assert len(lab.stored_keys("asynq:{w}:t:*")) == LIMIT
    assert assert_queue_is_same(lab, "w").archived == LIMIT


def test_a_task_that_sorts_first_is_trimmed_itself_and_its_hash_is_orphaned(lab: Lab) -> None:
    preload(lab, LIMIT, int(time.time()) + 600)
    lab.enqueue("fail", queue="w", task_id="first", max_retry=0)
    lab.start_server(queues={"w": 1})

    lab.wait_for_info("w", pending=0, active=0, archived=LIMIT, failed=1)

    assert lab.redis.zscore(ARCHIVED, "first") is None
    assert lab.redis.hget("asynq:{w}:t:first", "state") == b"archived"
    assert assert_queue_is_same(lab, "w").archived == LIMIT


@pytest.mark.parametrize("verb", ["archive_task", "archive_all"])
def test_the_inspector_trims_without_deleting(lab: Lab, verb: str) -> None:
    preload(lab, LIMIT, int(time.time()) - 60)
    lab.enqueue("ok", queue="w", task_id="one-more")
    target = {"id": "one-more"} if verb == "archive_task" else {"state": "pending"}
    lab.go.call(verb, queue="w", **target)

    assert lab.redis.zcard(ARCHIVED) == LIMIT
    assert len(lab.stored_keys("asynq:{w}:t:*")) == LIMIT + 1
    assert assert_queue_is_same(lab, "w").archived == LIMIT


def test_thousands_of_tasks_that_expire_at_once_break_the_script_midway(lab: Lab) -> None:
    preload(lab, 8_000, int(time.time()) - 91 * 86_400)
    lab.enqueue("fail", queue="w", task_id="torn", max_retry=0)
    lab.start_server(queues={"w": 1})

    # The expired hashes are deleted, their IDs stay: asynq's queue info fails from now on.
    wait_until(lambda: lab.stored_keys("asynq:{w}:t:*") == [b"asynq:{w}:t:torn"], what="the hashes are gone")
    with pytest.raises(AsynqError, match="arithmetic on local 'bytes'"):
        lab.go_info("w")
    assert lab.redis.hget("asynq:{w}:t:torn", "state") == b"active"

    info = lab.ours.queue_info("w")
    assert (info.pending, info.active, info.archived, info.failed) == (0, 0, 8_001, 0)
