"""What the demo writes is genuine to those who read it, wherever it is written."""

import threading
import time
from collections.abc import Iterator

import fakeredis
import pytest
from redis import Redis
from redis.cluster import RedisCluster

from otel_queue.asynq.inspector import Inspector
from otel_queue.config import RedisConfig
from otel_queue.demo.workload import Workload
from otel_queue.redis_client import connect
from tests.asynq_peer import AsynqPeer
from tests.servers.redis_cluster import redis_cluster

COUNTS = (
    "size",
    "groups",
    "pending",
    "active",
    "scheduled",
    "retry",
    "archived",
    "completed",
    "aggregating",
    "processed",
    "failed",
    "processed_total",
    "failed_total",
    "paused",
)


def run_until_now(workload: Workload, seconds: float) -> None:
    """Work off the last seconds in steps of a fifth of one, so that readers meet it as if it were live."""
    start = time.time() - seconds
    for index in range(int(seconds * 5) + 1):
        workload.step(start + index / 5)


@pytest.fixture
def fake_server_url() -> Iterator[str]:
    server = fakeredis.TcpFakeServer(("127.0.0.1", 0))
    server.daemon_threads, server.block_on_close = True, False
    # Its replies are many small packets: without this each of them waits for the client's delayed acknowledgement.
    server.RequestHandlerClass.disable_nagle_algorithm = True  # type: ignore[attr-defined]
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"redis://127.0.0.1:{server.server_address[1]}/0"
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_go_inspector_reads_every_number_as_ours_does(redis_url: str) -> None:
    workload = Workload(redis_url)
    run_until_now(workload, 40)
    snapshot = Inspector(connect(RedisConfig(url=redis_url))).snapshot()
    assert not snapshot.failures
    ours = {info.queue: {name: getattr(info, name) for name in COUNTS} for info in snapshot.queues}
    with AsynqPeer(redis_url) as peer:
        queues = peer.call("queues")
        go = {queue: peer.call("queue_info", queue=queue) for queue in queues}
        assert {queue: {name: info[name] for name in COUNTS} for queue, info in go.items()} == ours
        for queue in queues:
            for state in ("pending", "active", "scheduled", "retry", "archived", "completed"):
                listed = peer.call("list_tasks", queue=queue, state=state, page_size=100_000)
                # A task that Go cannot read is left out or blank.
                assert len([task for task in listed if task["id"]]) == go[queue][state]
        hosts = {server["host"] for server in peer.call("servers")}
        assert {"convoy-agent-0", "digest-0"} <= hosts
        assert len(peer.call("scheduler_entries")) == 6
    workload.stop()


def test_dead_servers_tasks_show_as_expired_leases(redis_url: str) -> None:
    workload = Workload(redis_url)
    run_until_now(workload, 60)
    snapshot = Inspector(connect(RedisConfig(url=redis_url))).snapshot()
    assert sum(info.lease_expired or 0 for info in snapshot.queues) > 0
    assert sum(info.active_without_lease or 0 for info in snapshot.queues) == 0
    workload.stop()


def test_it_runs_on_a_redis_cluster() -> None:
    with (
        redis_cluster() as cluster,
        RedisCluster(host="127.0.0.1", port=cluster.nodes[0].port) as client,
    ):
        workload = Workload(client)
        run_until_now(workload, 25)
        snapshot = Inspector(connect(RedisConfig(url=cluster.url))).snapshot()
        workload.stop()
    processed = {info.queue: info.processed_total for info in snapshot.queues}
    assert not snapshot.failures
    assert len(processed) >= 6
    assert (processed["EventQueue"] or 0) > 20


def test_it_runs_on_a_fake_server(fake_server_url: str) -> None:
    workload = Workload(fake_server_url)
    run_until_now(workload, 5)
    with Redis.from_url(fake_server_url) as client:
        assert int(client.get("asynq:{EventQueue}:processed") or 0) > 5
    workload.stop()
