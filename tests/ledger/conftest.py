from collections.abc import Iterator
from typing import Any

import pytest

from otel_queue.ledger.writer import BufferedWriter
from tests.ledger.ledgers import Ledger, assert_every_key_has_a_life
from tests.ledger.writers import TIMEOUT_SECONDS, buffered
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import Cluster, redis_cluster


@pytest.fixture(autouse=True)
def no_key_without_a_life(request: pytest.FixtureRequest) -> Iterator[None]:
    """After every test: a key of the ledger has a TTL, or stands on the written list of permanent keys."""
    servers: list[RedisServer] = []
    if "redis_server" in request.fixturenames:
        servers.append(request.getfixturevalue("redis_server"))
    if "cluster" in request.fixturenames:
        servers += request.getfixturevalue("cluster").nodes
    yield
    for server in servers:
        assert_every_key_has_a_life(server, databases=(0, 1) if len(servers) == 1 else (0,))


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as opened:
        yield opened


@pytest.fixture
def ledger(redis_server: RedisServer) -> Iterator[Ledger]:
    opened = Ledger(redis_server.url)
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def module_cluster() -> Iterator[Cluster]:
    with redis_cluster() as running:
        yield running


@pytest.fixture
def cluster(module_cluster: Cluster) -> Cluster:
    for node in module_cluster.nodes:
        with node.client() as client:
            client.flushall()
    return module_cluster


@pytest.fixture
def writer(redis_server: RedisServer) -> Iterator[BufferedWriter]:
    opened = buffered(redis_server.url)
    yield opened
    opened.close(TIMEOUT_SECONDS)
