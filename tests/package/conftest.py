from collections.abc import Iterator

import pytest

from tests.package.distributions import Distributions, build
from tests.postgres.conftest import gateway as gateway
from tests.postgres.conftest import postgres as postgres
from tests.servers.process import temporary_directory


@pytest.fixture(scope="session")
def distributions() -> Iterator[Distributions]:
    with temporary_directory() as directory:
        yield build(directory)
