from collections.abc import Iterator

import pytest
import redis

from otel_queue.asynq.inspector import Inspector
from tests.inspector.filled import inspecting
from tests.servers.redis import RedisServer


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[redis.Redis]:
    """For writing to the module's empty Redis."""
    with redis_server.client() as client:
        yield client


@pytest.fixture
def inspector(redis_server: RedisServer) -> Iterator[Inspector]:
    """An inspector that has read nothing yet."""
    with inspecting(redis_server.url) as inspector:
        yield inspector
