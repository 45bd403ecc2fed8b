import signal
from collections.abc import Iterator

import pytest

from tests.servers import redis as redis_servers
from tests.servers.redis import RedisServer


def pytest_configure() -> None:
    # make, CI and timeout(1) end a run by SIGTERM; Python's default for it would leave every server running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)


@pytest.fixture(scope="module")
def module_redis_server() -> Iterator[RedisServer]:
    with redis_servers.redis_server() as server:
        yield server


@pytest.fixture
def redis_server(module_redis_server: RedisServer) -> RedisServer:
    """A real Redis, empty, shared by the module's tests: one that kills or pauses a server starts its own."""
    with module_redis_server.client() as client:
        client.flushall()
    return module_redis_server


@pytest.fixture
def redis_url(redis_server: RedisServer) -> str:
    return redis_server.url
