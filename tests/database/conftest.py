from collections.abc import Iterator

import pytest

from tests.database.scene import Scene, scenes
from tests.postgres.conftest import any_gateway as any_gateway
from tests.postgres.conftest import gateway as gateway
from tests.postgres.conftest import own_gateway as own_gateway
from tests.postgres.conftest import partitioned_gateway as partitioned_gateway
from tests.postgres.conftest import postgres as postgres
from tests.postgres.gateway import Gateway


@pytest.fixture
def scene(any_gateway: Gateway, redis_url: str) -> Iterator[Scene]:
    """A follower of plain tables, and of partitioned ones."""
    with scenes(any_gateway, redis_url) as opened:
        yield opened


@pytest.fixture
def plain(gateway: Gateway, redis_url: str) -> Iterator[Scene]:
    with scenes(gateway, redis_url) as opened:
        yield opened


@pytest.fixture
def partitioned(partitioned_gateway: Gateway, redis_url: str) -> Iterator[Scene]:
    with scenes(partitioned_gateway, redis_url) as opened:
        yield opened
