import contextlib
import itertools
from collections.abc import Callable, Iterator

import pytest
import redis

from otel_queue.postgres.source import PostgresSource
from tests.postgres.exporters import Exporter, Refresh, exporters, is_held_up
from tests.postgres.gateway import HERE, Gateway
from tests.servers.postgres import PostgresServer, postgres_server
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer

_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    """A real PostgreSQL with the gateway's tables in the databases `plain` and `partitioned`."""
    with postgres_server() as server:
        for database in ("plain", "partitioned"):
            server.execute(f"CREATE DATABASE {database}")
            with server.connect(database) as connection:
                connection.execute((HERE / "schema.sql").read_bytes())
        with server.connect("partitioned") as connection:
            connection.execute((HERE / "partitioned.sql").read_bytes())
        yield server


@pytest.fixture
def gateway(postgres: PostgresServer) -> Iterator[Gateway]:
    """With plain tables, shared: a test that changes more than rows takes `own_gateway`."""
    with contextlib.closing(Gateway(postgres, "plain")) as opened:
        yield opened


@pytest.fixture
def partitioned_gateway(postgres: PostgresServer) -> Iterator[Gateway]:
    with contextlib.closing(Gateway(postgres, "partitioned")) as opened:
        yield opened


@pytest.fixture(params=["plain", "partitioned"])
def any_gateway(postgres: PostgresServer, request: pytest.FixtureRequest) -> Iterator[Gateway]:
    with contextlib.closing(Gateway(postgres, request.param)) as opened:
        yield opened


@pytest.fixture
def own_gateway(postgres: PostgresServer) -> Iterator[Gateway]:
    """With plain tables, in a database that goes with the test."""
    name = f"own{next(_numbers)}"
    postgres.execute(f"CREATE DATABASE {name} TEMPLATE plain")
    with contextlib.closing(Gateway(postgres, name)) as opened:
        yield opened
    postgres.execute(f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
def exporter(gateway: Gateway, redis_url: str) -> Iterator[Exporter]:
    with exporters(gateway, redis_url) as new:
        yield new


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    with redis_server.client() as opened:
        yield opened


@pytest.fixture
def refresh(gateway: Gateway) -> Iterator[Callable[[PostgresSource], Refresh]]:
    started: list[Refresh] = []

    def start(source: PostgresSource) -> Refresh:
        started.append(Refresh(gateway, source))
        wait_until(lambda: is_held_up(gateway), within=20, what="the refresh is in the middle of its statements")
        return started[-1]

    yield start
    for each in started:
        each.let_go()
