"""The same ledger on Redis Cluster, and with scripts and servers that go in between."""

import random

import pytest

from otel_queue.errors import WriteError
from otel_queue.lifecycle import (
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from tests.ledger.ledgers import (
    DAY_US,
    Ledger,
    assert_every_key_has_a_life,
    assert_same,
    day_of,
    expected,
    fold,
    ledger_server,
    now_us,
    ulid,
)
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import Cluster, redis_cluster

NOW_US = now_us()
PROJECTS = [f"project {number}" for number in range(12)]


def work(seed: int) -> list[Record]:
    """Some of everything, in any order, for all projects."""
    chance = random.Random(seed)
    records: list[Record] = []
    for project in PROJECTS:
        records.append(ProjectDescribed(project, NOW_US, project.title(), "o", "Org"))
        for _ in range(chance.randint(1, 40)):
            id_ = ulid(NOW_US - chance.randint(0, 3) * DAY_US, chance.getrandbits(80))
            records += [
                EventCreated(project, id_, NOW_US, chance.choice(("S1", None))),
                DeliveryCreated(project, id_, NOW_US, f"E{chance.randint(1, 5)}", "t", "S1", created_us=NOW_US),
                StatusSet(project, id_, chance.choice(("processing", "success", "retry")), NOW_US + 1),
                AttemptMade(project, id_, NOW_US, "E1", chance.random() < 0.5, 200),
            ]
    chance.shuffle(records)
    return records


def script_flush(*servers: RedisServer) -> None:
    for server in servers:
        with server.client() as client:
            client.script_flush()


def test_a_cluster_holds_the_same_ledger_with_projects_on_different_nodes(cluster: Cluster) -> None:
    ledger = Ledger(cluster.url)
    records = work(seed=1)
    ledger.write(*records)
    families, now = ledger.read()
    assert_same(families, expected(records, now))
    assert {cluster.port_of(f"oq:{{{project}}}:meta".encode()) for project in PROJECTS} == {
        node.port for node in cluster.nodes
    }
    assert ledger.differences() == []
    ledger.close()


def test_days_expire_fold_and_are_repaired_on_a_cluster(cluster: Cluster) -> None:
    ledger = Ledger(cluster.url)
    records = work(seed=2)
    ledger.write(*records)
    yesterday, before = day_of(NOW_US - DAY_US), day_of(NOW_US - 2 * DAY_US)
    for project in PROJECTS:
        ledger.upkeep.expire(project, before)
        with cluster.client() as client:
            fold(client, project, yesterday)
    families, now = ledger.read()
    assert_same(families, expected([*records, *(DayExpired(project, before) for project in PROJECTS)], now))
    key = f"oq:{{{PROJECTS[0]}}}:counts:{day_of(NOW_US)}"
    with cluster.client() as client:
        client.hset(key, "1:1", 1_000)
    assert ledger.differences() != []
    assert ledger.upkeep.repair(PROJECTS[0], day_of(NOW_US))
    assert ledger.differences() == []
    ledger.close()


def test_scripts_that_a_cluster_forgot_are_loaded_again(cluster: Cluster) -> None:
    ledger = Ledger(cluster.url)
    records = work(seed=3)
    ledger.write(*records[:100])
    script_flush(cluster.nodes[0], cluster.nodes[2])
    ledger.write(*records[100:])
    families, now = ledger.read()
    assert_same(families, expected(records, now))
    ledger.close()


def test_what_a_dead_node_of_a_cluster_missed_is_written_when_it_is_back() -> None:
    records = work(seed=4)
    with redis_cluster("--appendonly", "yes", "--appendfsync", "always") as cluster:
        ledger = Ledger(cluster.url)
        ledger.write(*records[:100])
        cluster.nodes[2].kill()
        with pytest.raises(WriteError):
            ledger.write(*records[100:])
        cluster.nodes[2].start()
        wait_until(cluster.is_whole, what="the cluster is whole again")
        # As a writer does: the same records again, until they are written.
        wait_until(lambda: ledger.write(*records[100:]), what="they are written")
        families, now = ledger.read()
        assert_same(families, expected(records, now))
        assert ledger.differences() == []
        ledger.close()
        for node in cluster.nodes:
            assert_every_key_has_a_life(node)


def test_scripts_that_redis_forgot_are_loaded_again(redis_server: RedisServer, ledger: Ledger) -> None:
    records = work(seed=5)
    for first in range(0, len(records), 50):
        ledger.write(*records[first : first + 50])
        script_flush(redis_server)
    families, now = ledger.read()
    assert_same(families, expected(records, now))


def test_a_restarted_redis_goes_on_with_the_same_ledger() -> None:
    records = work(seed=6)
    with ledger_server("--appendonly", "yes", "--appendfsync", "always") as server:
        ledger = Ledger(server.url)
        ledger.write(*records[:100])
        server.restart()
        wait_until(lambda: ledger.write(*records[100:]), what="they are written")
        families, now = ledger.read()
        assert_same(families, expected(records, now))
        assert ledger.differences() == []
        ledger.close()
