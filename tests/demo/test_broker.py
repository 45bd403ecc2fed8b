"""What the demo writes is asynq's wire format; expected keys and bytes are spelled out, not built."""

from dataclasses import replace

import pytest

from otel_queue.asynq.message import TaskMessage, decode_task_message
from otel_queue.demo.broker import Broker
from tests.demo.conftest import START, RawRedis, SteppedClock

TASK = TaskMessage("ok", b"p1", "t1", "default", headers={"k": "v"})
GOLDEN = bytes.fromhex("0a026f6b120270311a027431220764656661756c74281940880e7a060a016b120176")
LOCK = b"asynq:{default}:unique:ok:ec6ef230f1828039ee794566b9c58adc"


@pytest.fixture
def broker(client: RawRedis, clock: SteppedClock) -> Broker:
    return Broker(client, clock)


def keys_of(client: RawRedis) -> set[bytes]:
    return set(client.keys())


def score(client: RawRedis, key: str, task_id: str) -> float | None:
    found: float | None = client.zscore(key, task_id)
    return found


def dequeue(broker: Broker) -> TaskMessage:
    task = broker.dequeue("default")
    assert task is not None
    return task


def stored(client: RawRedis, task_id: str = "t1") -> TaskMessage:
    message = client.hget(f"asynq:{{default}}:t:{task_id}", "msg")
    assert message is not None
    return decode_task_message(message)


def test_an_enqueued_task_is_written_byte_for_byte_as_go_writes_it(
    client: RawRedis, broker: Broker, clock: SteppedClock
) -> None:
    clock.now = START + 0.25
    assert broker.enqueue(TASK)
    assert keys_of(client) == {b"asynq:queues", b"asynq:{default}:pending", b"asynq:{default}:t:t1"}
    assert client.smembers("asynq:queues") == {b"default"}
    assert client.hgetall("asynq:{default}:t:t1") == {
        b"msg": GOLDEN,
        b"state": b"pending",
        b"pending_since": b"4102430400250000000",
    }


def test_a_taken_id_is_refused_and_the_first_task_stays(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(TASK)
    assert not broker.enqueue(replace(TASK, payload=b"other"))
    assert client.llen("asynq:{default}:pending") == 1
    assert stored(client).payload == b"p1"


def test_a_unique_task_holds_a_lock_over_type_and_payload(client: RawRedis, broker: Broker) -> None:
    assert broker.enqueue(TASK, unique_seconds=60)
    assert client.get(LOCK) == b"t1"
    assert 0 < client.ttl(LOCK) <= 60
    assert client.hget("asynq:{default}:t:t1", "unique_key") == LOCK
    assert stored(client).unique_key == LOCK.decode()
    assert not broker.enqueue(replace(TASK, id="t2"), unique_seconds=60)


def test_a_refused_id_leaves_the_lock_behind_as_asynq_does(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(replace(TASK, payload=b"first"))
    assert not broker.enqueue(TASK, unique_seconds=60)
    assert client.get(LOCK) == b"t1"


def test_the_lock_of_a_task_without_payload_has_an_empty_digest(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(replace(TASK, payload=b""), unique_seconds=60)
    assert client.get("asynq:{default}:unique:ok:") == b"t1"


def test_a_scheduled_task_waits_under_whole_seconds(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(replace(TASK, group_key="G"), process_at=START + 3600.9)
    assert score(client, "asynq:{default}:scheduled", "t1") == START + 3600
    assert client.hget("asynq:{default}:t:t1", "state") == b"scheduled"
    assert client.hkeys("asynq:{default}:t:t1") == [b"msg", b"state"]  # the group is in the message alone


def test_a_group_task_aggregates_and_its_hash_names_no_lock(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(replace(TASK, group_key="H:x"), unique_seconds=60)
    assert score(client, "asynq:{default}:g:H:x", "t1") == START
    assert client.smembers("asynq:{default}:groups") == {b"H:x"}
    task = client.hgetall("asynq:{default}:t:t1")
    assert (task[b"state"], task[b"group"]) == (b"aggregating", b"H:x")
    assert b"unique_key" not in task
    assert client.get(LOCK) == b"t1"


def test_tasks_are_dequeued_in_order_and_leased_for_thirty_seconds(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(TASK)
    broker.enqueue(replace(TASK, id="t2"))
    assert dequeue(broker).id == "t1"
    assert client.lrange("asynq:{default}:active", 0, -1) == [b"t1"]
    assert score(client, "asynq:{default}:lease", "t1") == START + 30
    assert client.hgetall("asynq:{default}:t:t1") == {b"msg": GOLDEN, b"state": b"active"}


def test_a_paused_queue_gives_no_task_until_it_is_unpaused(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(TASK)
    broker.pause("default")
    assert client.get("asynq:{default}:paused") == str(int(START)).encode()
    assert broker.dequeue("default") is None
    broker.unpause("default")
    assert dequeue(broker).id == "t1"


def test_an_empty_queue_gives_no_task(broker: Broker) -> None:
    assert broker.dequeue("default") is None


def test_a_finished_task_leaves_counters_and_nothing_else(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(TASK, unique_seconds=60)
    broker.finish(dequeue(broker))
    day = b"asynq:{default}:processed:2099-12-31"
    assert keys_of(client) == {b"asynq:queues", b"asynq:{default}:processed", day}
    assert (client.get("asynq:{default}:processed"), client.get(day)) == (b"1", b"1")
    assert client.expiretime(day) == START + 90 * 86_400


def test_a_lock_that_another_task_holds_is_not_released(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(TASK, unique_seconds=60)
    task = dequeue(broker)
    client.set(LOCK, "t2")
    broker.finish(task)
    assert client.get(LOCK) == b"t2"


def test_only_a_days_first_count_sets_its_time_to_live(client: RawRedis, broker: Broker, clock: SteppedClock) -> None:
    for number in range(2):
        broker.enqueue(replace(TASK, id=f"t{number}"))
        broker.finish(dequeue(broker))
        clock.now += 60
    assert client.get("asynq:{default}:processed:2099-12-31") == b"2"
    assert client.expiretime("asynq:{default}:processed:2099-12-31") == START + 90 * 86_400


def test_retention_keeps_a_completed_task_until_the_janitor_comes(
    client: RawRedis, broker: Broker, clock: SteppedClock
) -> None:
    broker.enqueue(replace(TASK, retention=300))
    broker.finish(dequeue(broker))
    assert score(client, "asynq:{default}:completed", "t1") == START + 300
    assert client.hget("asynq:{default}:t:t1", "state") == b"completed"
    assert stored(client).completed_at == START
    clock.now += 299
    broker.delete_expired_completed(["default"])
    assert client.exists("asynq:{default}:t:t1")
    clock.now += 1
    broker.delete_expired_completed(["default"])
    assert not client.exists("asynq:{default}:t:t1", "asynq:{default}:completed")


def test_a_retry_records_the_failure_and_keeps_the_lock(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(TASK, unique_seconds=60)
    broker.fail(dequeue(broker), START + 7.5, "HTTP 500")
    task = stored(client)
    assert (task.retried, task.error_msg, task.last_failed_at) == (1, "HTTP 500", START)
    assert score(client, "asynq:{default}:retry", "t1") == START + 7
    assert client.hget("asynq:{default}:t:t1", "state") == b"retry"
    assert not client.exists("asynq:{default}:active", "asynq:{default}:lease")
    for key in ("processed", "failed", "processed:2099-12-31", "failed:2099-12-31"):
        assert client.get(f"asynq:{{default}}:{key}") == b"1"
    assert client.expiretime("asynq:{default}:failed:2099-12-31") == START + 90 * 86_400
    assert client.get(LOCK) == b"t1"


def test_spent_retries_archive_the_task(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(replace(TASK, retry=0))
    broker.fail(dequeue(broker), START + 7, "HTTP 500")
    assert score(client, "asynq:{default}:archived", "t1") == START
    assert client.hget("asynq:{default}:t:t1", "state") == b"archived"
    assert (stored(client).retried, stored(client).error_msg) == (0, "HTTP 500")
    assert client.get("asynq:{default}:failed") == b"1"


def test_the_archive_keeps_the_9999_newest_and_no_hash_of_the_others(client: RawRedis, broker: Broker) -> None:
    client.zadd("asynq:{default}:archived", {f"old{n}": START - 20_000 + n for n in range(9_999)})
    client.hset("asynq:{default}:t:old0", "state", "archived")
    broker.enqueue(replace(TASK, retry=0))
    broker.fail(dequeue(broker), START, "HTTP 500")
    assert client.zcard("asynq:{default}:archived") == 9_999
    assert score(client, "asynq:{default}:archived", "t1") == START
    assert score(client, "asynq:{default}:archived", "old0") is None
    assert not client.exists("asynq:{default}:t:old0")


def test_the_archive_forgets_tasks_after_ninety_days(client: RawRedis, broker: Broker) -> None:
    client.zadd("asynq:{default}:archived", {"old": START - 90 * 86_400, "young": START - 89 * 86_400})
    client.hset("asynq:{default}:t:old", "state", "archived")
    broker.enqueue(replace(TASK, retry=0))
    broker.fail(dequeue(broker), START, "HTTP 500")
    assert client.zrange("asynq:{default}:archived", 0, -1) == [b"young", b"t1"]
    assert not client.exists("asynq:{default}:t:old")


def test_a_requeued_task_is_the_next_to_run_and_counts_nowhere(client: RawRedis, broker: Broker) -> None:
    for task_id in ("t1", "t2"):
        broker.enqueue(replace(TASK, id=task_id))
    broker.requeue(dequeue(broker))
    assert client.hgetall("asynq:{default}:t:t1") == {b"msg": GOLDEN, b"state": b"pending"}
    assert client.get("asynq:{default}:processed") is None
    assert dequeue(broker).id == "t1"


@pytest.mark.parametrize("state", ["scheduled", "retry"])
def test_a_due_task_is_forwarded_to_the_end_of_the_line(
    client: RawRedis, broker: Broker, clock: SteppedClock, state: str
) -> None:
    broker.enqueue(TASK, process_at=START + 5 if state == "scheduled" else 0)
    if state == "retry":
        broker.fail(dequeue(broker), START + 5, "HTTP 500")
    broker.enqueue(replace(TASK, id="t2"))
    broker.forward(["default"])
    assert client.lrange("asynq:{default}:pending", 0, -1) == [b"t2"]
    clock.now += 5
    broker.forward(["default"])
    assert client.lrange("asynq:{default}:pending", 0, -1) == [b"t1", b"t2"]
    assert client.hget("asynq:{default}:t:t1", "pending_since") == b"%d000000000" % clock.now
    assert not client.exists(f"asynq:{{default}}:{state}")


def test_a_forwarded_group_task_returns_to_its_group_untold(
    client: RawRedis, broker: Broker, clock: SteppedClock
) -> None:
    broker.enqueue(TASK)
    broker.fail(dequeue(broker), START, "HTTP 500")
    client.hset("asynq:{default}:t:t1", "group", "G")
    clock.now += 1
    broker.forward(["default"])
    assert score(client, "asynq:{default}:g:G", "t1") == clock.now
    assert client.hget("asynq:{default}:t:t1", "state") == b"aggregating"
    assert not client.exists("asynq:{default}:groups", "asynq:{default}:pending")


def test_a_beat_extends_held_leases_and_grants_no_new_ones(
    client: RawRedis, broker: Broker, clock: SteppedClock
) -> None:
    broker.enqueue(TASK)
    held = dequeue(broker)
    clock.now += 5
    broker.extend_leases([held, replace(TASK, id="recovered by another")])
    assert client.zcard("asynq:{default}:lease") == 1
    assert score(client, "asynq:{default}:lease", "t1") == START + 35


def test_an_expired_lease_is_recovered_thirty_seconds_later(
    client: RawRedis, broker: Broker, clock: SteppedClock
) -> None:
    broker.enqueue(TASK)
    broker.enqueue(replace(TASK, id="t2", retry=0))
    dequeue(broker)
    dequeue(broker)
    clock.now += 59
    assert broker.recover(["default"], retry_seconds=3) == 0
    clock.now += 1
    assert broker.recover(["default"], retry_seconds=3) == 2
    assert score(client, "asynq:{default}:retry", "t1") == clock.now + 3
    assert score(client, "asynq:{default}:archived", "t2") == clock.now
    assert stored(client).error_msg == stored(client, "t2").error_msg == "asynq: task lease expired"
    assert client.get("asynq:{default}:failed") == b"2"
    assert not client.exists("asynq:{default}:active", "asynq:{default}:lease")


def test_deleting_archived_tasks_deletes_their_hashes(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(replace(TASK, retry=0))
    broker.fail(dequeue(broker), START, "HTTP 500")
    broker.delete_archived("default")
    assert not client.exists("asynq:{default}:archived", "asynq:{default}:t:t1")


def test_a_queue_is_listed_again_after_redis_lost_everything(client: RawRedis, broker: Broker) -> None:
    broker.enqueue(TASK)
    client.flushall()
    broker.forget_registered()
    broker.enqueue(TASK)
    assert client.smembers("asynq:queues") == {b"default"}
