"""Damaged, foreign and extreme keys: each costs its own number, and nothing else of any queue."""

import time

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.queue_info import STATES
from otel_queue.demo.broker import Broker
from tests.inspector.filled import FILLED, assert_filled, fill_queue, inspecting, queue_of, task, values
from tests.servers.redis import redis_server

TODAY = "today"


def key_of(suffix: str) -> bytes:
    if suffix.endswith(TODAY):
        day = time.strftime("%Y-%m-%d", time.gmtime())
        return keys.queue_key("filled", suffix.replace(TODAY, day))
    return keys.queue_key("filled", suffix)


# Key -> the fields that cannot be known while it holds another type.
LOST_BY_KEY: dict[str, set[str]] = {
    "pending": {"pending", "size", "latency"},
    "active": {"active", "size", "active_without_lease"},
    "scheduled": {"scheduled", "size", "overdue_scheduled"},
    "retry": {"retry", "size", "overdue_retry"},
    "archived": {"archived", "size"},
    "completed": {"completed", "size"},
    "groups": {"groups", "aggregating", "size"},
    "g:G": {"aggregating", "size"},
    "lease": {"active_without_lease", "lease_expired"},
    "processed": {"processed_total"},
    "failed": {"failed_total"},
    f"processed:{TODAY}": {"processed"},
    f"failed:{TODAY}": {"failed"},
    "paused": set(),  # its existence is all that counts
    "t:t4": set(),
}


def wrong_for(client: redis.Redis, key: bytes) -> None:
    """Puts a value of another type at a key that has one."""
    kind = client.type(key)
    client.delete(key)
    if kind == b"string":
        client.lpush(key, "x")
    else:
        client.set(key, "x")


@pytest.mark.parametrize("suffix", LOST_BY_KEY)
def test_a_key_of_another_type_costs_only_what_is_read_from_it(
    inspector: Inspector, client: redis.Redis, suffix: str
) -> None:
    fill_queue(client)
    fill_queue(client, "neighbour")
    wrong_for(client, key_of(suffix))
    for _ in range(3):
        snapshot = inspector.snapshot()
        filled, neighbour = snapshot.queues
        lost = LOST_BY_KEY[suffix]
        assert values(filled) == {name: None if name in lost else value for name, value in FILLED.items()}
        assert (filled.latency is None) == ("latency" in lost)
        assert set(snapshot.failures) == ({"wrong_type"} if lost else set())
        assert_filled(neighbour)
    wrong = values(inspector.queue_info("filled"))
    assert wrong == values(filled)


@pytest.mark.parametrize(
    "value", ["many", "1.5", "", "-", "--5", "+5", " 5", "5 ", "1e3", "0x10", b"\xff", "٣", "9" * 20]
)
def test_a_counter_that_is_no_integer_is_unknown_and_counted(
    inspector: Inspector, client: redis.Redis, value: str | bytes
) -> None:
    fill_queue(client)
    client.set(keys.processed("filled"), value)
    for _ in range(2):
        snapshot = inspector.snapshot()
        assert values(snapshot.queues[0]) == FILLED | {"processed_total": None}
        assert snapshot.failures == {"bad_value": 1}


@pytest.mark.parametrize(
    ("value", "read"), [("-5", -5), ("007", 7), ("-0", 0), (str(2**63 - 1), 2**63 - 1), (str(-(2**63)), -(2**63))]
)
def test_a_counter_that_is_an_integer_is_exact(
    inspector: Inspector, client: redis.Redis, value: str, read: int
) -> None:
    fill_queue(client)
    client.set(keys.processed("filled"), value)
    snapshot = inspector.snapshot()
    assert (snapshot.queues[0].processed_total, snapshot.failures) == (read, {})


def test_an_absent_counter_is_zero_and_one_of_another_type_unknown(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    client.delete(keys.failed("filled"))
    wrong_for(client, keys.processed("filled"))
    for _ in range(2):
        snapshot = inspector.snapshot()
        info = snapshot.queues[0]
        assert (info.processed_total, info.failed_total) == (None, 0)
        assert snapshot.failures == {"wrong_type": 1}


def test_totals_whose_sum_leaves_64_bits_are_exact(inspector: Inspector, client: redis.Redis) -> None:
    client.sadd(keys.QUEUES, "q")
    client.mset({keys.processed("q"): 2**63 - 1, keys.failed("q"): 2**63 - 1})
    info = queue_of(inspector, "q")
    assert (info.processed_total, info.failed_total) == (2**63 - 1, 2**63 - 1)


@pytest.mark.parametrize("score", [1e300, float("inf"), 2**53 + 2.0, 1.5e10])
def test_a_score_in_the_far_future_is_not_overdue(inspector: Inspector, client: redis.Redis, score: float) -> None:
    fill_queue(client)
    for suffix in ("scheduled", "retry", "lease"):
        key = keys.queue_key("filled", suffix)
        for member in client.zrange(key, 0, -1):
            client.execute_command("ZADD", key, score, member)
    snapshot = inspector.snapshot()
    assert values(snapshot.queues[0]) == FILLED
    assert snapshot.failures == {}
    assert inspector.tasks("filled", "scheduled")[0].next_process_at == score


def test_a_fractional_score_is_overdue_by_what_is_left_of_it(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    client.zadd(keys.queue_key("filled", "retry"), {"late": time.time() - 100.25})
    late = queue_of(inspector).overdue_retry
    assert late is not None
    assert 100 <= late < 160


def test_a_score_before_all_time_is_overdue_and_raises_nothing(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    client.zadd(keys.queue_key("filled", "scheduled"), {"x": -1e300})
    client.zadd(keys.queue_key("filled", "lease"), {"x": float("-inf")})
    info = queue_of(inspector)
    assert info.overdue_scheduled == 1e300
    assert info.lease_expired == 1
    assert (info.pending, info.scheduled, info.active_without_lease) == (2, 2, 0)


def test_active_tasks_without_a_lease_and_expired_leases_are_told_apart(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    client.lpush(keys.queue_key("filled", "active"), "ghost", "another")
    client.zadd(keys.queue_key("filled", "lease"), {"t4": int(time.time()) - 5})
    info = queue_of(inspector)
    assert (info.active, info.active_without_lease, info.lease_expired) == (3, 2, 1)


def test_leases_without_active_tasks_are_no_negative_number(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    client.delete(keys.queue_key("filled", "active"))
    info = queue_of(inspector)
    assert (info.active, info.active_without_lease, info.size) == (0, 0, 8)


def test_a_queue_over_the_cap_of_groups_is_counted_and_its_groups_are_not_read(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    fill_queue(client, "neighbour")
    for number in range(4):
        Broker(client, time.time).enqueue(task(f"more{number}", group_key=f"more{number}"))
    inspector._groups_cap = 4
    inspector.snapshot()
    snapshot = inspector.snapshot()
    over, neighbour = snapshot.queues
    assert (over.groups, over.aggregating, over.size, over.pending) == (5, None, None, 2)
    assert_filled(neighbour)
    assert snapshot.failures == {"groups_capped": 1}
    assert snapshot.round_trips == 2
    assert inspector.memory_usage()["filled"] is None
    assert inspector.memory_usage()["neighbour"] is not None


def test_a_queue_that_grows_over_the_cap_and_shrinks_again_follows_it(
    inspector: Inspector, client: redis.Redis
) -> None:
    inspector._groups_cap = 2
    broker = Broker(client, time.time)
    groups = keys.queue_key("q", "groups")
    for name in "ab":
        broker.enqueue(task(name, "q", group_key=name))
    assert [queue_of(inspector, "q").aggregating for _ in range(2)] == [2, 2]
    broker.enqueue(task("c", "q", group_key="c"))
    for _ in range(3):
        snapshot = inspector.snapshot()
        assert (snapshot.queues[0].groups, snapshot.queues[0].aggregating) == (3, None)
        assert snapshot.failures == {"groups_capped": 1}
    client.srem(groups, "c")
    assert [queue_of(inspector, "q").aggregating for _ in range(2)] == [2, 2]


def test_a_cap_of_zero_reads_no_group_and_counts_queues_without_groups(
    inspector: Inspector, client: redis.Redis
) -> None:
    inspector._groups_cap = 0
    fill_queue(client)
    Broker(client, time.time).enqueue(task("t", "plain"))
    filled, plain = inspector.snapshot().queues
    assert (filled.groups, filled.aggregating, filled.size) == (1, None, None)
    assert (plain.groups, plain.aggregating, plain.size) == (0, 0, 1)


def test_a_group_without_tasks_and_tasks_without_a_listed_group_count_as_asynq_counts_them(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    client.sadd(keys.queue_key("filled", "groups"), "empty")
    client.zadd(keys.group("filled", "unlisted"), {"x": 1})
    client.zadd(keys.aggregation_set("filled", "G", "in-flight"), {"y": 1})
    info = queue_of(inspector)
    assert (info.groups, info.aggregating, info.size) == (2, 2, 9)
    assert inspector.groups("filled") == {"G": 2, "empty": 0}


def test_ids_without_hashes_are_counted_where_they_are_listed(inspector: Inspector, client: redis.Redis) -> None:
    client.sadd(keys.QUEUES, "q")
    for state in ("pending", "active"):
        client.lpush(keys.queue_key("q", state), "gone")
    for state in ("scheduled", "retry", "archived", "completed"):
        client.zadd(keys.queue_key("q", state), {"gone": 2e9})
    info = queue_of(inspector, "q")
    assert [info.in_state(state) for state in STATES] == [1, 1, 1, 1, 1, 1, 0]
    assert (info.size, info.active_without_lease, info.latency) == (6, 1, None)


def test_hashes_that_no_list_knows_are_counted_nowhere(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    client.hset(keys.task("filled", "orphan"), mapping={"state": "archived"})
    assert_filled(queue_of(inspector))


def test_keys_of_an_asynq_before_it_had_hashes_are_counted_by_what_their_type_allows(
    inspector: Inspector, client: redis.Redis
) -> None:
    """Up to version 0.17 tasks were JSON in the lists themselves, and `asynq:{q}` was the pending list."""
    client.sadd(keys.QUEUES, "q")
    old = '{"Type":"ok","Payload":{},"ID":"1","Queue":"q"}'
    client.lpush("asynq:{q}", old)
    client.zadd(keys.queue_key("q", "scheduled"), {old: 2e9})
    client.lpush(keys.queue_key("q", "active"), old)
    client.zadd(keys.queue_key("q", "deadlines"), {old: 2e9})
    client.zadd(keys.queue_key("q", "dead"), {old: 2e9})
    snapshot = inspector.snapshot()
    [info] = snapshot.queues
    assert (info.pending, info.active, info.scheduled, info.archived) == (0, 1, 1, 0)
    assert snapshot.failures == {}
    assert [found.type for found in inspector.tasks("q", "scheduled")] == [None]


def test_a_list_of_queues_of_another_type_is_an_error_each_time(inspector: Inspector, client: redis.Redis) -> None:
    """Kept on purpose: an error that is still referred to must not keep the connection."""
    client.set(keys.QUEUES, "x")
    kept = []
    for _ in range(3):
        with pytest.raises(Exception, match="WRONGTYPE") as raised:
            inspector.snapshot()
        kept.append(raised)
    client.delete(keys.QUEUES)
    fill_queue(client)
    assert_filled(queue_of(inspector))
    assert len(kept) == 3


def test_commands_that_a_server_has_renamed_away_cost_their_fields_only() -> None:
    gone = ("ZCOUNT", "MEMORY", "MULTI")
    arguments = [word for name in gone for word in ("--rename-command", name, "")]
    with redis_server(args=arguments) as server:
        with server.client() as writer:
            # Its own transactions have no MULTI either.
            writer.sadd(keys.QUEUES, "q")
            writer.lpush(keys.queue_key("q", "pending"), "t")
            writer.zadd(keys.queue_key("q", "lease"), {"t": 1})
        with inspecting(server.url) as inspector:
            snapshot = inspector.snapshot()
            assert snapshot.queues[0].pending == 1
            assert snapshot.queues[0].lease_expired is None
            assert snapshot.failures["not_supported"] == 1
            assert inspector.memory_usage() == {"q": None}
