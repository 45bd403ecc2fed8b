"""Servers with their workers, and schedulers with their entries: those that live, and nothing is purged."""

import time
from dataclasses import replace

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.message import encode_server_info, encode_worker_info
from otel_queue.asynq.servers import _MARGIN_SECONDS
from otel_queue.demo.broker import Broker
from otel_queue.demo.heartbeat import beat_scheduler, beat_server
from otel_queue.errors import ReadError
from tests.inspector.filled import ENTRIES, SERVER, WORKER, inspecting
from tests.servers.redis import RedisServer

SERVER_KEY = keys.server(SERVER.host, SERVER.pid, SERVER.server_id)
WORKERS_KEY = keys.workers_of(SERVER_KEY)
SCHEDULER_KEY = keys.scheduler("host-a", 7, "scheduler-1")


@pytest.fixture
def broker(client: redis.Redis) -> Broker:
    return Broker(client, time.time)


def test_there_may_be_none(inspector: Inspector) -> None:
    assert (inspector.servers(), inspector.scheduler_entries()) == ([], [])
    snapshot = inspector.snapshot()
    assert (snapshot.servers, snapshot.scheduler_entries, snapshot.failures) == ((), (), {})


def test_servers_are_sorted_by_host_and_process(inspector: Inspector, broker: Broker) -> None:
    others = [
        replace(SERVER, host="host-b", server_id="s2"),
        replace(SERVER, pid=100, server_id="s3", status="stopped"),
        replace(SERVER, pid=20, server_id="s4"),
    ]
    for server in (*others, SERVER):
        beat_server(broker, server, [WORKER] if server is SERVER else [])
    found = inspector.servers()
    assert [(each.info.host, each.info.pid) for each in found] == [
        ("host-a", 7), ("host-a", 20), ("host-a", 100), ("host-b", 7),
    ]  # fmt: skip
    assert found[0].active_workers == (WORKER,)
    assert [each.active_workers for each in found[1:]] == [(), (), ()]


def test_schedulers_keep_the_order_in_which_entries_were_registered(inspector: Inspector, broker: Broker) -> None:
    beat_scheduler(broker, SCHEDULER_KEY, ENTRIES)
    assert inspector.scheduler_entries() == list(ENTRIES)
    assert inspector.scheduler_entries()[0].prev_enqueue_time is None


@pytest.mark.parametrize("seconds_ago", [1, _MARGIN_SECONDS - 2, _MARGIN_SECONDS + 2, 10_000])
def test_the_dead_are_not_reported_and_not_purged(
    inspector: Inspector, client: redis.Redis, broker: Broker, seconds_ago: int
) -> None:
    beat_server(broker, SERVER, [WORKER])
    beat_scheduler(broker, SCHEDULER_KEY, ENTRIES)
    ended = int(time.time()) - seconds_ago
    client.zadd(keys.SERVERS, {SERVER_KEY: ended})
    client.zadd(keys.SCHEDULERS, {SCHEDULER_KEY: ended})
    for _ in range(2):
        snapshot = inspector.snapshot()
        assert (snapshot.servers, snapshot.scheduler_entries, snapshot.failures) == ((), (), {})
    assert (inspector.servers(), inspector.scheduler_entries()) == ([], [])
    assert client.zcard(keys.SERVERS) == client.zcard(keys.SCHEDULERS) == 1


def test_members_whose_keys_have_expired_are_not_reported(inspector: Inspector, client: redis.Redis) -> None:
    later = int(time.time()) + 60
    for member in (SERVER_KEY, b"no key of ours", b"\xff\x00"):
        client.zadd(keys.SERVERS, {member: later})
    client.zadd(keys.SCHEDULERS, {SCHEDULER_KEY: later})
    snapshot = inspector.snapshot()
    assert (snapshot.servers, snapshot.scheduler_entries, snapshot.failures) == ((), (), {})


undecodable = pytest.mark.parametrize("value", [b"\xff\xff", b'{"Host":"old","PID":1}', b"\x0a\x05ab"])


@undecodable
def test_a_server_that_cannot_be_decoded_makes_all_servers_unknown(
    inspector: Inspector, client: redis.Redis, broker: Broker, value: bytes
) -> None:
    beat_server(broker, SERVER, [WORKER])
    beat_scheduler(broker, SCHEDULER_KEY, ENTRIES)
    other = keys.server("host-b", 1, "server-2")
    client.zadd(keys.SERVERS, {other: time.time() + 60})
    client.set(other, value)
    snapshot = inspector.snapshot()
    assert (snapshot.servers, snapshot.scheduler_entries) == (None, ENTRIES)
    assert snapshot.failures == {"undecodable": 1}
    with pytest.raises(ReadError, match=r"asynq:servers:{host-b:1:server-2} cannot be read: .* ServerInfo"):
        inspector.servers()
    assert inspector.scheduler_entries() == list(ENTRIES)


@undecodable
def test_a_worker_that_cannot_be_decoded_makes_its_servers_workers_unknown(
    inspector: Inspector, client: redis.Redis, broker: Broker, value: bytes
) -> None:
    other = replace(SERVER, host="host-b", server_id="server-2")
    beat_server(broker, SERVER, [WORKER])
    beat_server(broker, other, [])
    client.hset(WORKERS_KEY, "broken", value)
    snapshot = inspector.snapshot()
    assert snapshot.servers is not None
    assert [(each.info, each.active_workers) for each in snapshot.servers] == [(SERVER, None), (other, ())]
    assert snapshot.failures == {"undecodable": 1}
    assert [each.active_workers for each in inspector.servers()] == [None, ()]


@undecodable
def test_a_scheduler_entry_that_cannot_be_decoded_makes_all_entries_unknown(
    inspector: Inspector, client: redis.Redis, broker: Broker, value: bytes
) -> None:
    beat_server(broker, SERVER, [WORKER])
    beat_scheduler(broker, SCHEDULER_KEY, ENTRIES)
    beat_scheduler(broker, keys.scheduler("host-b", 8, "scheduler-2"), ENTRIES)
    client.lpush(SCHEDULER_KEY, value)
    snapshot = inspector.snapshot()
    assert snapshot.scheduler_entries is None
    assert snapshot.servers is not None
    assert snapshot.failures == {"undecodable": 1}
    with pytest.raises(ReadError, match=r"asynq:schedulers:{host-a:7:scheduler-1} cannot be read: .* SchedulerEntry"):
        inspector.scheduler_entries()


@pytest.mark.parametrize("listing", [keys.SERVERS, keys.SCHEDULERS])
def test_a_listing_of_another_type_is_unknown_and_counted(
    inspector: Inspector, client: redis.Redis, broker: Broker, listing: bytes
) -> None:
    beat_server(broker, SERVER, [])
    beat_scheduler(broker, SCHEDULER_KEY, ENTRIES)
    client.delete(listing)
    client.set(listing, "x")
    snapshot = inspector.snapshot()
    assert (snapshot.servers is None) == (listing == keys.SERVERS)
    assert (snapshot.scheduler_entries is None) == (listing == keys.SCHEDULERS)
    assert snapshot.failures == {"wrong_type": 1}
    ask = inspector.servers if listing == keys.SERVERS else inspector.scheduler_entries
    with pytest.raises(ReadError) as refused:
        ask()
    assert refused.value.reason == "wrong_type"


def test_keys_of_another_type_make_a_servers_workers_or_all_servers_unknown(
    inspector: Inspector, client: redis.Redis, broker: Broker
) -> None:
    other = replace(SERVER, host="host-b", server_id="server-2")
    beat_server(broker, SERVER, [WORKER])
    beat_server(broker, other, [])
    client.set(WORKERS_KEY, "x")
    found = [(each.info.host, each.active_workers) for each in inspector.servers()]
    assert found == [("host-a", None), ("host-b", ())]
    client.delete(SERVER_KEY)
    client.lpush(SERVER_KEY, "x")
    snapshot = inspector.snapshot()
    # Without the one that cannot be read the others would look like all there are.
    assert snapshot.servers is None
    assert snapshot.failures == {"wrong_type": 1}


def test_workers_of_another_server_in_the_same_hash_are_left_out(
    inspector: Inspector, client: redis.Redis, broker: Broker
) -> None:
    beat_server(broker, SERVER, [WORKER])
    client.hset(WORKERS_KEY, "foreign", encode_worker_info(replace(WORKER, server_id="another")))
    assert [each.active_workers for each in inspector.servers()] == [(WORKER,)]


def test_a_server_without_a_start_time_or_queues_is_reported(inspector: Inspector, client: redis.Redis) -> None:
    bare = replace(SERVER, queues={}, start_time=None, concurrency=0)
    client.zadd(keys.SERVERS, {SERVER_KEY: time.time() + 60})
    client.set(SERVER_KEY, encode_server_info(bare))
    assert [each.info for each in inspector.servers()] == [bare]


def test_workers_are_not_asked_for_when_they_are_not_wanted(
    redis_server: RedisServer, broker: Broker, client: redis.Redis
) -> None:
    beat_server(broker, SERVER, [WORKER])
    with inspecting(redis_server.url) as inspector:
        inspector._with_workers = False
        before = client.info("commandstats").get("cmdstat_hvals", {}).get("calls", 0)
        snapshot = inspector.snapshot()
        after = client.info("commandstats").get("cmdstat_hvals", {}).get("calls", 0)
    assert snapshot.servers is not None
    assert [(each.info, each.active_workers) for each in snapshot.servers] == [(SERVER, None)]
    assert before == after
