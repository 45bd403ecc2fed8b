"""What a test does when this machine cannot run it: skip on a laptop, fail where everything is promised."""

import os
from typing import NoReturn

import pytest

REQUIRE_ALL = "TESTS_REQUIRE_ALL"


def missing(reason: str) -> NoReturn:
    """Skip the test, or fail it where TESTS_REQUIRE_ALL=1 says that nothing may be missing."""
    if os.environ.get(REQUIRE_ALL) == "1":
        pytest.fail(f"{reason} ({REQUIRE_ALL}=1 forbids skipping)", pytrace=False)
    pytest.skip(reason)
