from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from tests.conformance.lab import Lab
from tests.servers.redis import RedisServer


@pytest.fixture
def lab(redis_server: RedisServer) -> Iterator[Lab]:
    with ExitStack() as stack:
        yield Lab(redis_server, stack)
