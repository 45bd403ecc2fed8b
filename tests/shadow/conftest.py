from collections.abc import Iterator

import pytest

from otel_queue.config import RedisConfig
from otel_queue.redis_client import connect
from otel_queue.shadow.journal import Journal
from tests.ledger.ledgers import Ledger, assert_every_key_has_a_life
from tests.postgres.conftest import any_gateway, gateway, partitioned_gateway, postgres
from tests.servers.redis import RedisServer

__all__ = ["any_gateway", "gateway", "partitioned_gateway", "postgres"]


@pytest.fixture
def journal(redis_url: str) -> Iterator[Journal]:
    opened = Journal(connect(RedisConfig(url=redis_url)))
    yield opened
    opened.close()


@pytest.fixture
def ledger(redis_server: RedisServer) -> Iterator[Ledger]:
    opened = Ledger(redis_server.url)
    yield opened
    opened.close()
    assert_every_key_has_a_life(redis_server)
