import pytest

from tests.ledger.ledgers import Ledger
from tests.servers.redis import RedisServer


@pytest.fixture(autouse=True)
def begun(request: pytest.FixtureRequest) -> None:
    """A test that has a Redis has a ledger there that has begun, as workers need one."""
    if "redis_server" in request.fixturenames:
        server: RedisServer = request.getfixturevalue("redis_server")
        Ledger(server.url).close()
