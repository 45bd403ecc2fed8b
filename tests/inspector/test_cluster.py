"""Redis Cluster: queues on different nodes, slots that move, a node that is gone."""

import contextlib
from collections.abc import Iterator

import pytest

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.redis_client import ask, connect, request
from tests.inspector.filled import FILLED, assert_filled, assert_shows_all, fill, fill_queue, inspecting, queue_of
from tests.inspector.test_least_permissions import LEAST, acl_line
from tests.servers.process import free_port, wait_until
from tests.servers.redis import RedisServer, redis_server
from tests.servers.redis_cluster import Cluster, redis_cluster


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[Cluster]:
    with redis_cluster() as running:
        yield running


@pytest.fixture
def cluster(running_cluster: Cluster) -> Cluster:
    """Empty, and shared by the module: a test that breaks it starts its own."""
    for node in running_cluster.nodes:
        with node.client() as client:
            client.flushall()
    return running_cluster


@pytest.fixture
def inspector(cluster: Cluster) -> Iterator[Inspector]:
    with inspecting(cluster.url) as inspector:
        yield inspector


def node_of(cluster: Cluster, queue: str) -> RedisServer:
    port = cluster.port_of(keys.queue_key(queue, "pending"))
    return next(node for node in cluster.nodes if node.port == port)


def one_queue_per_node(cluster: Cluster) -> list[str]:
    found: dict[int, str] = {}
    for number in range(1000):
        found.setdefault(node_of(cluster, f"q{number}").port, f"q{number}")
        if len(found) == len(cluster.nodes):
            return sorted(found.values())
    raise AssertionError("one thousand names share two nodes")


def test_all_that_one_server_tells_a_cluster_tells_too(cluster: Cluster, inspector: Inspector) -> None:
    with cluster.client() as client:
        fill(client)
    assert_shows_all(inspector)


def test_queues_on_three_nodes_are_read_in_two_round_trips(cluster: Cluster, inspector: Inspector) -> None:
    names = one_queue_per_node(cluster)
    with cluster.client() as client:
        for name in names:
            fill_queue(client, name)
    inspector.snapshot()
    snapshot = inspector.snapshot()
    assert [info.queue for info in snapshot.queues] == names
    for info in snapshot.queues:
        assert_filled(info)
    assert (snapshot.failures, snapshot.round_trips) == ({}, 2)


class SlotMove:
    """Moves one queue's slot to another node, in the steps that `redis-cli --cluster reshard` takes."""

    def __init__(self, cluster: Cluster, queue: str) -> None:
        with cluster.client() as client:
            self.slot = client.keyslot(keys.queue_key(queue, "pending"))
        self.source = node_of(cluster, queue)
        self.target = next(node for node in cluster.nodes if node is not self.source)
        self.cluster = cluster

    def begin(self) -> None:
        self.set_slot(self.target, "IMPORTING", self.id_of(self.source))
        self.set_slot(self.source, "MIGRATING", self.id_of(self.target))

    def move_keys(self) -> None:
        with self.source.client() as client:
            found = client.execute_command("CLUSTER", "GETKEYSINSLOT", self.slot, 10_000)
            client.execute_command("MIGRATE", "127.0.0.1", self.target.port, "", 0, 5_000, "KEYS", *found)

    def end(self) -> None:
        for node in (self.target, *(node for node in self.cluster.nodes if node is not self.target)):
            self.set_slot(node, "NODE", self.id_of(self.target))

    def set_slot(self, node: RedisServer, what: str, owner: str) -> None:
        with node.client() as client:
            client.execute_command("CLUSTER", "SETSLOT", self.slot, what, owner)

    @staticmethod
    def id_of(node: RedisServer) -> str:
        with node.client() as client:
            found = client.execute_command("CLUSTER", "MYID")
        return found.decode() if isinstance(found, bytes) else str(found)

    def back(self) -> "SlotMove":
        """The way back."""
        back = SlotMove.__new__(SlotMove)
        back.slot, back.source, back.target, back.cluster = self.slot, self.target, self.source, self.cluster
        return back


@contextlib.contextmanager
def moved_back_at_the_end(move: SlotMove) -> Iterator[None]:
    """The module's other tests find the shares of the start."""
    try:
        yield
    finally:
        back = move.back()
        back.begin()
        back.move_keys()
        back.end()


def test_a_slot_that_has_moved_is_followed(cluster: Cluster, inspector: Inspector) -> None:
    with cluster.client() as client:
        fill_queue(client)
    assert_filled(queue_of(inspector))
    move = SlotMove(cluster, "filled")
    move.begin()
    move.move_keys()
    move.end()
    with moved_back_at_the_end(move):
        snapshot = inspector.snapshot()
        assert_filled(snapshot.queues[0])
        assert snapshot.failures == {}
        assert inspector.snapshot().failures == {}


def test_keys_under_way_to_another_node_are_unknown_and_counted_as_moved(
    cluster: Cluster, inspector: Inspector
) -> None:
    neighbour = next(name for name in one_queue_per_node(cluster) if name != "filled")
    with cluster.client() as client:
        fill_queue(client)
        fill_queue(client, neighbour)
    move = SlotMove(cluster, "filled")
    move.begin()
    move.move_keys()
    snapshot = inspector.snapshot()
    move.end()
    with moved_back_at_the_end(move):
        by_name = {info.queue: info for info in snapshot.queues}
        assert_filled(by_name[neighbour])
        assert {by_name["filled"].in_state(state) for state in ("pending", "active", "retry")} == {None}
        assert by_name["filled"].processed_total is None
        assert set(snapshot.failures) <= {"moved", "aborted", "cluster_down"}
        assert snapshot.failures["moved"] > 0
        assert_filled(queue_of(inspector))


def test_a_queue_name_that_starts_with_a_closing_brace_has_no_single_slot_and_costs_only_itself(
    cluster: Cluster, inspector: Inspector
) -> None:
    with cluster.client() as client:
        fill_queue(client)
        client.sadd(keys.QUEUES, "}odd")
    inspector.snapshot()
    snapshot = inspector.snapshot()
    odd, filled = sorted(snapshot.queues, key=lambda info: info.queue != "}odd")
    assert odd.size is None
    assert_filled(filled)
    assert snapshot.failures["moved"] > 0


@pytest.fixture
def breakable_cluster() -> Iterator[Cluster]:
    with redis_cluster("--cluster-require-full-coverage", "no") as cluster:
        yield cluster


def test_a_dead_node_costs_its_own_queues_only_until_it_is_back(breakable_cluster: Cluster) -> None:
    cluster = breakable_cluster
    names = one_queue_per_node(cluster)
    dead = next(node for node in cluster.nodes if node.port != cluster.port_of(keys.QUEUES))
    [lost] = [name for name in names if node_of(cluster, name) is dead]
    with cluster.client() as client:
        for name in names:
            fill_queue(client, name)
    with inspecting(cluster.url, connect_timeout_seconds=1.0) as inspector:
        assert inspector.snapshot().failures == {}
        dead.kill()
        # At first the others still send us there, then they know.
        for _ in range(2):
            snapshot = inspector.snapshot()
            for info in snapshot.queues:
                if info.queue == lost:
                    assert {getattr(info, field) for field in FILLED} == {None}
                else:
                    assert_filled(info)
            assert set(snapshot.failures) <= {"connection", "cluster_down"}
            assert sum(snapshot.failures.values()) >= 1
        dead.start()
        wait_until(cluster.is_whole, what="the cluster is whole again")
        with cluster.client() as client:
            fill_queue(client, lost)
        wait_until(lambda: inspector.snapshot().failures == {}, what="every node is read again")
        assert_filled(queue_of(inspector, lost))


def test_one_exchange_is_refused_whole_when_a_node_cannot_answer_its_part(breakable_cluster: Cluster) -> None:
    cluster = breakable_cluster
    names = one_queue_per_node(cluster)
    pending = [keys.queue_key(name, "pending") for name in names]
    requests = [request(key, [("LLEN", key)]) for key in pending]
    with contextlib.closing(connect(RedisConfig(url=cluster.url, connect_timeout_seconds=1.0))) as link:
        assert ask(link, requests, 5.0) == [[0], [0], [0]]
        dead = node_of(cluster, names[-1])
        dead.kill()
        with pytest.raises(ReadError) as refused:
            ask(link, requests, 5.0)
        assert refused.value.reason in ("connection", "cluster_down")
        dead.start()
        wait_until(cluster.is_whole, what="the cluster is whole again")


@pytest.fixture
def patient_cluster() -> Iterator[Cluster]:
    """Its nodes do not give each other up within a test."""
    with redis_cluster("--cluster-node-timeout", "60000") as cluster:
        yield cluster


def test_a_node_that_does_not_answer_costs_its_own_queues_only(patient_cluster: Cluster) -> None:
    cluster = patient_cluster
    names = one_queue_per_node(cluster)
    mute = next(node for node in cluster.nodes if node.port != cluster.port_of(keys.QUEUES))
    [lost] = [name for name in names if node_of(cluster, name) is mute]
    with cluster.client() as client:
        for name in names:
            fill_queue(client, name)
    with inspecting(cluster.url, connect_timeout_seconds=0.5, timeout_seconds=2.0) as inspector:
        assert inspector.snapshot().failures == {}
        mute.pause()
        for _ in range(3):
            snapshot = inspector.snapshot()
            for info in snapshot.queues:
                if info.queue == lost:
                    assert info.size is None
                else:
                    assert_filled(info)
            assert set(snapshot.failures) == {"timeout"}
        mute.resume()
        wait_until(lambda: inspector.snapshot().failures == {}, what="every node is read again")
        assert_filled(queue_of(inspector, lost))


def test_a_cluster_that_wants_full_coverage_is_down_for_everybody_when_one_node_is_gone() -> None:
    with redis_cluster() as cluster:
        with cluster.client() as client:
            fill_queue(client)
        dead = next(node for node in cluster.nodes if node.port != cluster.port_of(keys.QUEUES))
        with inspecting(cluster.url, connect_timeout_seconds=1.0) as inspector:
            inspector.snapshot()
            dead.kill()

            def reason() -> str:
                try:
                    inspector.snapshot()
                except ReadError as error:
                    return error.reason
                return "none"

            wait_until(lambda: reason() == "cluster_down", what="the nodes say CLUSTERDOWN")


def test_a_cluster_of_which_no_node_listens_is_a_connection_error() -> None:
    with redis_cluster() as cluster:
        for node in cluster.nodes:
            node.kill()
        with inspecting(cluster.url, connect_timeout_seconds=1.0) as inspector, pytest.raises(ReadError) as gone:
            inspector.snapshot()
        assert gone.value.reason == "connection"


def test_a_cluster_is_read_over_tls() -> None:
    arguments = ["--cluster-enabled", "yes", "--cluster-port", str(free_port()), "--tls-cluster", "yes"]
    with redis_server(tls=True, args=arguments) as server:
        with server.client() as client:
            client.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16_383)
            wait_until(lambda: "cluster_state:ok" in str(client.execute_command("CLUSTER", "INFO")), what="it is up")
            fill(client)
        url = f"rediss-cluster://127.0.0.1:{server.port}"
        with inspecting(url, tls_ca_file=server.ca_file) as inspector:
            assert_shows_all(inspector)
        with inspecting(url) as inspector, pytest.raises(ReadError, match=r"(?i)certificate"):
            inspector.snapshot()


def test_a_server_that_is_no_cluster_is_refused_clearly(redis_server: RedisServer) -> None:
    url = f"redis-cluster://127.0.0.1:{redis_server.port}"
    with inspecting(url) as inspector, pytest.raises(ReadError, match="cluster support disabled"):
        inspector.snapshot()


def test_a_slot_that_nobody_serves_costs_its_queue_only(breakable_cluster: Cluster) -> None:
    cluster = breakable_cluster
    lost, *others = (name for name in one_queue_per_node(cluster))
    with cluster.client() as client:
        for name in (lost, *others):
            fill_queue(client, name)
        slot = client.keyslot(keys.queue_key(lost, "pending"))
    for node in cluster.nodes:
        with node.client() as admin:
            admin.execute_command("CLUSTER", "DELSLOTS", slot)
    with inspecting(cluster.url) as inspector:
        for _ in range(2):
            snapshot = inspector.snapshot()
            by_name = {info.queue: info for info in snapshot.queues}
            assert by_name[lost].size is None
            for name in others:
                assert_filled(by_name[name])
            assert set(snapshot.failures) == {"cluster_down"}


# In a cluster, besides those that every user needs.
LEAST_CLUSTER_COMMANDS = ("+cluster|slots",)


def test_a_cluster_needs_a_command_of_its_own(cluster: Cluster) -> None:
    set_least_user(cluster)
    with inspecting(as_least(cluster)) as inspector, pytest.raises(ReadError, match="no permissions") as refused:
        inspector.snapshot()
    assert refused.value.reason == "permission"


def test_a_cluster_with_it_is_read_completely(cluster: Cluster) -> None:
    with cluster.client() as client:
        fill(client)
    set_least_user(cluster, *LEAST_CLUSTER_COMMANDS)
    with inspecting(as_least(cluster)) as inspector:
        assert_shows_all(inspector)


def as_least(cluster: Cluster) -> str:
    return cluster.url.replace("://", "://least:secret@")


def set_least_user(cluster: Cluster, *more: str) -> None:
    for node in cluster.nodes:
        with node.client() as admin:
            admin.execute_command("ACL", "SETUSER", *acl_line(LEAST).split(), *more)
