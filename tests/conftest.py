import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

from tests.requirements_gate import pytest_terminal_summary as pytest_terminal_summary
from tests.servers import redis as redis_servers
from tests.servers.redis import RedisServer

TESTS: Final = Path(__file__).parent
# They start whole systems and wait for alerts, intervals and installations. Begun last, one of them would keep a run
# alone with itself for a minute.
BEGIN_FIRST: Final = ("operations", "e2e", "deploy", "package", "domain")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.relative_to(TESTS).parts[0] not in BEGIN_FIRST)


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
