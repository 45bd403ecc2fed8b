from collections.abc import Iterator

import pytest

from otel_queue.config import RedisConfig
from otel_queue.redis_client import connect
from otel_queue.shadow.journal import Journal
from tests.ledger.ledgers import Ledger
from tests.postgres.conftest import gateway, postgres
from tests.server.conftest import exporter, serve, stopping
from tests.servers.redis import RedisServer

__all__ = ["exporter", "gateway", "postgres", "serve", "stopping"]


@pytest.fixture
def ledger(redis_server: RedisServer) -> Iterator[Ledger]:
    opened = Ledger(redis_server.url)
    yield opened
    opened.close()


@pytest.fixture
def journal(redis_url: str) -> Iterator[Journal]:
    opened = Journal(connect(RedisConfig(url=redis_url)))
    yield opened
    opened.close()
