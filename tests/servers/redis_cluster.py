"""Three masters that share the slots, without replicas."""

import contextlib
import dataclasses
from collections.abc import Iterator

import redis
from redis.crc import key_slot

from tests.requirements_gate import Needs, missing
from tests.servers.process import free_port, wait_until
from tests.servers.redis import RedisServer, redis_server, redis_version

SLOTS = 16_384


@dataclasses.dataclass
class Cluster:
    nodes: list[RedisServer]

    @property
    def url(self) -> str:
        """Two of the nodes: the third is found by asking them."""
        return "redis-cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes[:2])

    def client(self) -> redis.RedisCluster:
        return redis.RedisCluster(host="127.0.0.1", port=self.nodes[0].port)

    def port_of(self, key: bytes) -> int:
        """The node that serves the key, by the shares given at the start."""
        slot = key_slot(key)
        return next(node.port for number, node in enumerate(self.nodes) if slot <= _last_slot(number))

    def is_whole(self) -> bool:
        """Every node knows the others and sees all slots served."""
        return all(map(_sees_all, self.nodes))


@contextlib.contextmanager
def redis_cluster(*args: str) -> Iterator[Cluster]:
    """`args` are for each node's command line."""
    if redis_version() < (7, 0):
        missing(Needs.REDIS_CLUSTER, "a test cluster needs Redis 7.0 (cluster-port, CLUSTER ADDSLOTSRANGE)")
    with contextlib.ExitStack() as stack:
        bus_ports = [free_port() for _ in range(3)]
        nodes = [stack.enter_context(redis_server(args=[*_node_args(port), *args])) for port in bus_ports]
        for number, node in enumerate(nodes):
            with node.client() as client:
                # Different from the start, so that nobody has to settle a collision.
                client.execute_command("CLUSTER", "SET-CONFIG-EPOCH", number + 1)
                first = _last_slot(number - 1) + 1
                client.execute_command("CLUSTER", "ADDSLOTSRANGE", first, _last_slot(number))
                if number:
                    client.execute_command("CLUSTER", "MEET", "127.0.0.1", nodes[0].port, bus_ports[0])
        cluster = Cluster(nodes)
        wait_until(cluster.is_whole, what="every node sees all slots and both others")
        yield cluster


def _node_args(bus_port: int) -> list[str]:
    settings = {"cluster-enabled": "yes", "cluster-node-timeout": "1000", "cluster-port": str(bus_port)}
    return [word for name, value in settings.items() for word in (f"--{name}", value)]


def _last_slot(number: int) -> int:
    return SLOTS * (number + 1) // 3 - 1


def _sees_all(node: RedisServer) -> bool:
    with node.client() as client:
        told = client.execute_command("CLUSTER", "INFO")
    return {b"cluster_state:ok", b"cluster_known_nodes:3"} <= set(told.split())
