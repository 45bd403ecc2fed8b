from collections import Counter

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from tests.inspector.filled import fill_queue


def test_a_queue_uses_what_its_tasks_and_lists_use(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    names = {"pending": 2, "active": 1, "scheduled": 1, "retry": 1, "archived": 1, "completed": 1}
    stores = sum(client.memory_usage(keys.queue_key("filled", state)) or 0 for state in names)
    hashes = ["t0", "t1", "t2", "t4", "t5", "t6", "later", "g0", "g1"]
    tasks = sum(client.memory_usage(keys.task("filled", name)) or 0 for name in hashes)
    assert inspector.memory_usage(["filled"]) == {"filled": stores + tasks}


def test_queues_are_all_by_default_or_those_that_are_named(inspector: Inspector, client: redis.Redis) -> None:
    assert inspector.memory_usage() == {}
    fill_queue(client)
    client.sadd(keys.QUEUES, "empty")
    assert set(inspector.memory_usage()) == {"filled", "empty"}
    assert inspector.memory_usage(["empty", "nope"]) == {"empty": 0, "nope": 0}
    assert inspector.memory_usage([]) == {}


@pytest.mark.parametrize("suffix", ["pending", "retry", "groups", "g:G"])
def test_a_queue_with_an_unreadable_part_is_unknown_and_counted_and_its_neighbour_is_not(
    inspector: Inspector, client: redis.Redis, suffix: str
) -> None:
    fill_queue(client)
    fill_queue(client, "neighbour")
    client.delete(keys.queue_key("filled", suffix))
    client.set(keys.queue_key("filled", suffix), "x")
    failures: Counter[str] = Counter()
    usage = inspector.memory_usage(failures=failures)
    assert usage["filled"] is None
    assert usage["neighbour"]
    assert failures == {"wrong_type": 1}


def test_tasks_without_a_hash_count_as_nothing(inspector: Inspector, client: redis.Redis) -> None:
    client.sadd(keys.QUEUES, "q")
    client.lpush(keys.queue_key("q", "pending"), "gone")
    client.sadd(keys.queue_key("q", "groups"), "G")
    assert inspector.memory_usage() == {"q": client.memory_usage(keys.queue_key("q", "pending"))}


def test_many_queues_are_read_in_portions(inspector: Inspector, client: redis.Redis) -> None:
    client.sadd(keys.QUEUES, *(f"q{number}" for number in range(120)))
    client.lpush(keys.queue_key("q7", "pending"), "x")
    usage = inspector.memory_usage()
    assert len(usage) == 120
    assert {name for name, size in usage.items() if size} == {"q7"}


def test_a_state_uses_the_mean_of_its_first_twenty_tasks_times_all_of_them(
    inspector: Inspector, client: redis.Redis
) -> None:
    client.sadd(keys.QUEUES, "q")
    stores = {state: keys.queue_key("q", state) for state in ("pending", "completed")}
    for number in range(30):
        for state in stores:
            payload = "x" * (100 * number if number < 20 else 100_000)
            client.hset(keys.task("q", f"{state}{number}"), "msg", payload)
        client.rpush(stores["pending"], f"pending{number}")
        client.zadd(stores["completed"], {f"completed{number}": number})
    expected = 0.0
    for state, store in stores.items():
        sizes = [client.memory_usage(keys.task("q", f"{state}{number}")) or 0 for number in range(20)]
        expected += sum(sizes) / 20 * 30 + (client.memory_usage(store) or 0)
    assert inspector.memory_usage() == {"q": int(expected)}


def test_groups_use_the_mean_of_twenty_tasks_of_each_of_the_first_five_times_all_of_them(
    inspector: Inspector, client: redis.Redis
) -> None:
    client.sadd(keys.QUEUES, "q")
    groups = [str(number) for number in range(1, 8)]  # a set of numbers keeps them in their order
    client.sadd(keys.queue_key("q", "groups"), *groups)
    sampled = []
    for group in groups:
        for number in range(22):
            name = f"{group}-{number}"
            client.zadd(keys.group("q", group), {name: number})
            if number == 0:
                continue  # its hash is gone: not part of the mean
            large = number >= 20 or int(group) > 5
            client.hset(keys.task("q", name), "msg", "x" * (100_000 if large else 100 * int(group)))
            if not large:
                sampled.append(client.memory_usage(keys.task("q", name)) or 0)
    assert inspector.memory_usage() == {"q": int(sum(sampled) / len(sampled) * 7 * 22)}
