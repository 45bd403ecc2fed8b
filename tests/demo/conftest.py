from collections.abc import Iterator
from typing import Any

import fakeredis
import pytest
from redis import Redis

# Far enough ahead that no EXPIREAT of a stepped clock lies in the past of the server's own: 2099-12-31 20:00 UTC.
START = 4_102_430_400.0

# redis-py types replies as bytes or text; these clients do not decode, so they are bytes.
RawRedis = Any


class SteppedClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self.now = START

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock()


@pytest.fixture(params=["redis", "fakeredis"])
def client(request: pytest.FixtureRequest) -> Iterator[RawRedis]:
    """A Redis, real and fake: the demo runs on both."""
    if request.param == "fakeredis":
        with fakeredis.FakeRedis(server=fakeredis.FakeServer()) as fake:
            yield fake
        return
    with Redis.from_url(request.getfixturevalue("redis_url")) as real:
        yield real
