"""A project is a lane of its own: what cannot be written for one delays and drops nothing of another."""

import contextlib
import logging
import threading
from collections.abc import Iterator
from functools import partial

import pytest

from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.lifecycle import ProjectDescribed
from tests.ledger.go_recorder import line_of, start_replay, stats_of
from tests.ledger.ledgers import Ledger, assert_same, day_of, expected, ledger_server, now_us
from tests.ledger.writers import NOW_US, TIMEOUT_SECONDS, buffered, events, store
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import Cluster, redis_cluster

# Small beside what is told, so that a project which waits for another one loses records.
MOST = 5_000
STEP = 1_000
RECORDS = 12_000


class Nodes:
    """A cluster whose living nodes go on without the others, and projects by the node that has them."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.ledger = Ledger(cluster.url)

    def project_on(self, node: int, number: int = 0) -> str:
        """A project of that node, each number another one."""
        port = self.cluster.nodes[node].port
        names = (f"project {index}" for index in range(10_000))
        found = (name for name in names if self.cluster.port_of(f"oq:{{{name}}}:meta".encode()) == port)
        for _ in range(number):
            next(found)
        return next(found)

    @property
    def registry(self) -> int:
        """The node that has the list of projects."""
        port = self.cluster.port_of(b"oq:projects")
        return next(index for index, node in enumerate(self.cluster.nodes) if node.port == port)

    def others_than_registry(self) -> list[int]:
        return [index for index in range(3) if index != self.registry]


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    settings = ("--appendonly", "yes", "--appendfsync", "always", "--cluster-require-full-coverage", "no")
    with redis_cluster(*settings) as cluster:
        found = Nodes(cluster)
        yield found
        found.ledger.close()


def kill(node: RedisServer) -> None:
    node.kill()


def hang(node: RedisServer) -> None:
    node.pause()


def bring_back(node: RedisServer) -> None:
    if node.process.is_running:
        node.resume()
    else:
        node.start()


GONE = pytest.mark.parametrize("gone", [kill, hang])


def has_written(writer: BufferedWriter, records: int) -> bool:
    return sum(writer.written) >= records


@GONE
def test_a_dead_node_neither_delays_nor_drops_the_records_of_projects_on_others(nodes: Nodes, gone: object) -> None:
    assert callable(gone)
    dead, alive = nodes.others_than_registry()
    broken, healthy = nodes.project_on(dead), nodes.project_on(alive)
    writer = buffered(nodes.cluster.url, most_records=MOST, timeout_seconds=2.0)
    writer.write([*events(0, 1, broken), *events(0, 1, healthy)])
    assert writer.flush(TIMEOUT_SECONDS)
    gone(nodes.cluster.nodes[dead])
    writer.write(events(1, 100, broken))
    for first in range(0, RECORDS, STEP):
        writer.write(events(first, first + STEP, healthy))
        # The one before the last may still wait for what finds the node out.
        wait_until(partial(has_written, writer, first), what="healthy records are written", within=20)
        writer.write(events(100 + first, 101 + first, broken))
    wait_until(partial(has_written, writer, RECORDS + 1), what="all healthy records are written", within=20)
    assert writer.dropped == 0
    assert len(writer) == 99 + RECORDS // STEP
    bring_back(nodes.cluster.nodes[dead])
    wait_until(nodes.cluster.is_whole, what="the cluster is whole again")
    assert writer.close(TIMEOUT_SECONDS)
    told = [
        *events(0, 100, broken),
        *events(0, RECORDS, healthy),
        *(event for first in range(0, RECORDS, STEP) for event in events(100 + first, 101 + first, broken)),
    ]
    families, now = nodes.ledger.read()
    assert_same(families, expected(told, now))


def test_a_hung_node_is_waited_for_once_and_not_for_each_of_its_projects(nodes: Nodes) -> None:
    dead, alive = nodes.others_than_registry()
    healthy, broken = nodes.project_on(alive), [nodes.project_on(dead, number) for number in range(6)]
    writer = buffered(nodes.cluster.url, timeout_seconds=TIMEOUT_SECONDS)
    writer.write([*events(0, 1, broken[0]), *events(0, 1, healthy)])
    assert writer.flush(TIMEOUT_SECONDS)
    writer._timeout = 0.5
    nodes.cluster.nodes[dead].pause()
    writer.write(events(1, 2, broken[0]))
    wait_until(lambda: writer.failures["timeout"], what="it is found out")
    # From now on a try of it would take a minute.
    writer._timeout = 60.0
    for number in range(1, 6):
        writer.write([*events(0, 1, broken[number]), *events(number, number + 1, healthy)])
        wait_until(partial(has_written, writer, 2 + number), what="the healthy project's are written", within=30)
    assert len(writer) == 6
    nodes.cluster.nodes[dead].resume()
    assert writer.close(TIMEOUT_SECONDS)
    assert writer.dropped == 0


@GONE
def test_the_registrys_node_holds_up_no_records_and_projects_are_announced_when_it_is_back(
    nodes: Nodes, gone: object, caplog: pytest.LogCaptureFixture
) -> None:
    assert callable(gone)
    caplog.set_level(logging.INFO, "otel_queue.ledger.writer")
    projects = [nodes.project_on(node) for node in nodes.others_than_registry()]
    writer = buffered(nodes.cluster.url, timeout_seconds=1.0)
    gone(nodes.cluster.nodes[nodes.registry])
    told = []
    for first in range(0, 3_000, STEP):
        batch = [event for project in projects for event in events(first, first + STEP, project)]
        told += batch
        writer.write(batch)
        wait_until(lambda: not len(writer), what="all records are written", within=20)
    wait_until(lambda: writer.errors()["registry"], what="the announcement fails")
    assert (writer.dropped, writer.written.changed, set(writer.failures)) == (0, len(told), {"registry"})
    assert not writer.flush(0.0)  # readers do not know of them
    bring_back(nodes.cluster.nodes[nodes.registry])
    wait_until(nodes.cluster.is_whole, what="the cluster is whole again")
    assert writer.close(TIMEOUT_SECONDS)
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    # The hung node missed the ledger's records, not its birth.
    families, now = nodes.ledger.read()
    assert_same(families, expected(told, now))


@contextlib.contextmanager
def full(node: RedisServer) -> Iterator[None]:
    with node.client() as client:
        client.config_set("maxmemory", 1)
        yield
        client.config_set("maxmemory", 0)


@contextlib.contextmanager
def read_only(node: RedisServer) -> Iterator[None]:
    """As READONLY, which a cluster's own replica answers with MOVED: too few replicas."""
    with node.client() as client:
        client.config_set("min-replicas-to-write", 1)
        yield
        client.config_set("min-replicas-to-write", 0)


@pytest.mark.parametrize(("refusing", "reason"), [(full, "out_of_memory"), (read_only, "no_replicas")])
def test_a_node_that_refuses_writes_holds_up_its_own_projects_only(nodes: Nodes, refusing: object, reason: str) -> None:
    assert callable(refusing)
    dead, alive = nodes.others_than_registry()
    broken, healthy = nodes.project_on(dead), nodes.project_on(alive)
    writer = buffered(nodes.cluster.url, most_records=MOST)
    with refusing(nodes.cluster.nodes[dead]):
        for first in range(0, RECORDS, STEP):
            writer.write([*events(first, first + 10, broken), *events(first, first + STEP, healthy)])
            wait_until(partial(has_written, writer, first + STEP), what="healthy records are written", within=20)
        assert set(writer.failures) == {reason}
        assert (writer.dropped, len(writer)) == (0, 10 * RECORDS // STEP)
    assert writer.close(TIMEOUT_SECONDS)
    assert writer.dropped == 0


@GONE
def test_a_sync_writer_waits_for_a_dead_node_once_and_writes_the_others(nodes: Nodes, gone: object) -> None:
    assert callable(gone)
    dead, alive = nodes.others_than_registry()
    broken, healthy = nodes.project_on(dead), nodes.project_on(alive)
    writer = SyncWriter(
        store(nodes.cluster.url, connect_seconds=1.0), buffered(nodes.cluster.url, timeout_seconds=1.0),
        write_timeout_seconds=1.0, breaker_seconds=3_600,
    )  # fmt: skip
    assert writer.write([*events(0, 1, broken), *events(0, 1, healthy)]) == "written"
    gone(nodes.cluster.nodes[dead])
    for number in range(1, 20):
        assert writer.write(events(number, number + 1, broken)) == "queued"
        assert writer.write(events(number, number + 1, healthy)) == "written"
    assert writer.write([*events(20, 21, broken), *events(20, 21, healthy)]) == "queued"
    assert writer.failures.total() == 1
    bring_back(nodes.cluster.nodes[dead])
    wait_until(nodes.cluster.is_whole, what="the cluster is whole again")
    assert writer.close(TIMEOUT_SECONDS)
    families, now = nodes.ledger.read()
    assert_same(families, expected([*events(0, 21, broken), *events(0, 20, healthy), *events(20, 21, healthy)], now))


def test_handlers_of_other_projects_do_not_wait_for_one_that_waits_for_a_hung_node(nodes: Nodes) -> None:
    dead, alive = nodes.others_than_registry()
    broken, healthy = nodes.project_on(dead), nodes.project_on(alive)
    patient = SyncWriter(store(nodes.cluster.url), buffered(nodes.cluster.url), write_timeout_seconds=60.0)
    assert patient.write([*events(0, 1, broken), *events(0, 1, healthy)]) == "written"
    nodes.cluster.nodes[dead].pause()
    waiting = threading.Thread(target=patient.write, args=(events(1, 2, broken),))
    waiting.start()
    for number in range(1, 20):
        assert patient.write(events(number, number + 1, healthy)) == "written"
    assert waiting.is_alive()
    nodes.cluster.nodes[dead].resume()
    waiting.join()
    assert patient.failures.total() == 0
    assert patient.close(TIMEOUT_SECONDS)


def test_a_redis_that_is_gone_is_tried_and_told_once_whatever_the_number_of_projects(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "otel_queue.ledger.writer")
    monkeypatch.setattr("otel_queue.ledger.lanes.FIRST_PAUSE_SECONDS", 3_600.0)
    monkeypatch.setattr("otel_queue.ledger.lanes.LONGEST_PAUSE_SECONDS", 3_600.0)
    with ledger_server() as server:
        ledger = Ledger(server.url)
        server.kill()
        writer = buffered(server.url)
        told = [event for number in range(3_000) for event in events(0, 1, f"p{number}")]
        writer.write(told)
        wait_until(lambda: len(writer._lanes) == 3_000, what="all wait in their lanes")
        assert (writer.dropped, writer.failures) == (0, {"connection": 1})
        server.start()
        ledger.upkeep.begin()
        assert writer.close(TIMEOUT_SECONDS)
        assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
        assert writer.written == (3_000, 0, 0, 0)
        assert len(ledger.upkeep.projects()) == 3_000
        ledger.close()


@GONE
def test_the_go_recorder_neither_delays_nor_drops_records_of_projects_on_other_nodes(
    nodes: Nodes, gone: object
) -> None:
    assert callable(gone)
    dead, alive = nodes.others_than_registry()
    broken, healthy = nodes.project_on(dead), nodes.project_on(alive)
    url = f"redis://127.0.0.1:{nodes.cluster.nodes[alive].port}?read_timeout=1s"
    told = [*events(0, 5, broken), *events(0, RECORDS, healthy), *events(5, 10, broken)]
    with start_replay(url, "-cluster", "-live") as process:
        assert process.stdin is not None
        # So that it knows the nodes, as a worker does that has run for a while.
        process.stdin.write(line_of(ProjectDescribed(healthy, NOW_US, "Healthy")) + "\n")
        process.stdin.flush()
        with nodes.cluster.nodes[alive].client() as client:
            wait_until(lambda: client.exists(f"oq:{{{healthy}}}:meta"), what="it has written something")
            gone(nodes.cluster.nodes[dead])
            process.stdin.write("".join(line_of(each) + "\n" for each in told))
            process.stdin.flush()
            counted = f"oq:{{{healthy}}}:counts:{day_of(now_us())}"
            wait_until(lambda: client.hvals(counted) == [b"%d" % RECORDS], what="all healthy records are counted")
        bring_back(nodes.cluster.nodes[dead])
        wait_until(nodes.cluster.is_whole, what="the cluster is whole again")
        stats = stats_of(process, "")
    assert (stats["Queued"], stats["Dropped"], stats["Changed"]) == (0, 0, len(told))
    assert stats["Failures"] > 0
    families, now = nodes.ledger.read()
    assert_same(families, expected([*told, ProjectDescribed(healthy, NOW_US, "Healthy")], now))


def test_the_go_recorder_announces_projects_when_the_registrys_node_is_back(nodes: Nodes) -> None:
    [one, other] = [nodes.project_on(node) for node in nodes.others_than_registry()]
    alive = nodes.cluster.nodes[nodes.others_than_registry()[0]]
    registry = nodes.cluster.nodes[nodes.registry]
    registry.kill()
    told = [*events(0, 3_000, one), *events(0, 3_000, other)]
    with start_replay(f"redis://127.0.0.1:{alive.port}", "-cluster", "-live") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("".join(line_of(each) + "\n" for each in told))
        process.stdin.close()
        process.stdin = None
        assert "cannot be announced" in process.stderr.readline()
        registry.start()
        wait_until(nodes.cluster.is_whole, what="the cluster is whole again")
        stats = stats_of(process, "")
    assert (stats["Dropped"], stats["Changed"], stats["Failures"]) == (0, len(told), 0)
    assert stats["Unregistered"] > 0
    families, now = nodes.ledger.read()
    assert_same(families, expected(told, now))


def test_the_go_recorder_writes_what_goes_together_with_a_refused_project(
    redis_server: RedisServer, ledger: Ledger
) -> None:
    told = [event for number in range(5_000) for event in events(number, number + 1, f"p{number % 50}")]
    with redis_server.client() as client, start_replay(redis_server.url, "-live") as process:
        client.set("oq:{p7}:meta", "some text", ex=60)
        assert process.stdin is not None
        process.stdin.write("".join(line_of(each) + "\n" for each in told))
        process.stdin.flush()
        keys = [f"oq:{{p{number}}}:counts:{day_of(now_us())}" for number in range(50) if number != 7]
        wait_until(lambda: all(client.hvals(key) == [b"100"] for key in keys), what="the others' are counted")
        client.delete("oq:{p7}:meta")
        stats = stats_of(process, "")
    assert (stats["Dropped"], stats["Changed"]) == (0, 5_000)
    families, now = ledger.read()
    assert_same(families, expected(told, now))
