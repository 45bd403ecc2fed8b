import pytest

from otel_queue.asynq.message import (
    SchedulerEnqueueEvent,
    SchedulerEntry,
    ServerInfo,
    WorkerInfo,
    decode_scheduler_entry,
    decode_server_info,
    decode_worker_info,
    encode_scheduler_enqueue_event,
)
from otel_queue.demo import heartbeat
from otel_queue.demo.broker import Broker
from tests.demo.conftest import START, RawRedis, SteppedClock

SERVER = ServerInfo("host", 7, "S", 10, {"default": 3}, start_time=START)
WORKER = WorkerInfo("host", 7, "S", "t1", "ok", b"p1", "default", START, START + 1800)


@pytest.fixture
def broker(client: RawRedis, clock: SteppedClock) -> Broker:
    return Broker(client, clock)


def test_a_beat_names_server_and_workers_for_ten_seconds(client: RawRedis, broker: Broker) -> None:
    heartbeat.beat_server(broker, SERVER, [WORKER])
    server_key, workers_key = "asynq:servers:{host:7:S}", "asynq:workers:{host:7:S}"
    assert client.zscore("asynq:servers", server_key) == START + 10
    assert client.zscore("asynq:workers", workers_key) == START + 10
    info = client.get(server_key)
    assert info is not None
    assert decode_server_info(info) == SERVER
    assert {key: decode_worker_info(value) for key, value in client.hgetall(workers_key).items()} == {b"t1": WORKER}
    assert 0 < client.ttl(server_key) <= 10
    assert 0 < client.ttl(workers_key) <= 10


def test_an_idle_server_has_no_workers_hash_but_keeps_its_member(client: RawRedis, broker: Broker) -> None:
    heartbeat.beat_server(broker, SERVER, [WORKER])
    heartbeat.beat_server(broker, SERVER, [])
    assert not client.exists("asynq:workers:{host:7:S}")
    assert client.zcard("asynq:workers") == 1


def test_a_clean_shutdown_leaves_nothing(client: RawRedis, broker: Broker) -> None:
    heartbeat.beat_server(broker, SERVER, [WORKER])
    heartbeat.clear_server(broker, SERVER)
    assert client.keys() == []


def test_the_dead_are_purged_once_their_time_is_over(client: RawRedis, broker: Broker, clock: SteppedClock) -> None:
    heartbeat.beat_server(broker, SERVER, [])
    clock.now += 10
    heartbeat.purge_dead(broker)
    assert client.zcard("asynq:servers") == client.zcard("asynq:workers") == 1
    clock.now += 1
    heartbeat.purge_dead(broker)
    assert client.zcard("asynq:servers") == client.zcard("asynq:workers") == 0


def test_scheduler_entries_are_stored_last_first_for_twenty_seconds(client: RawRedis, broker: Broker) -> None:
    entries = [SchedulerEntry(name, "@every 3s", "ok", next_enqueue_time=START) for name in "ab"]
    for _ in range(2):
        heartbeat.beat_scheduler(broker, b"asynq:schedulers:{host:7:S}", entries)
    listed = [decode_scheduler_entry(raw) for raw in client.lrange("asynq:schedulers:{host:7:S}", 0, -1)]
    assert listed == entries[::-1]
    assert 0 < client.ttl("asynq:schedulers:{host:7:S}") <= 20
    assert client.zscore("asynq:schedulers", "asynq:schedulers:{host:7:S}") == START + 20


def test_an_entrys_history_keeps_the_thousand_newest_runs(
    client: RawRedis, broker: Broker, clock: SteppedClock
) -> None:
    client.zadd("asynq:scheduler_history:E", {f"run {n}": START - 1000 + n for n in range(1000)})
    heartbeat.record_enqueue(broker, "E", "t1")
    assert client.zcard("asynq:scheduler_history:E") == 1000
    assert client.zscore("asynq:scheduler_history:E", "run 0") is None
    newest = client.zrange("asynq:scheduler_history:E", -1, -1)[0]
    assert newest == encode_scheduler_enqueue_event(SchedulerEnqueueEvent("t1", START))
