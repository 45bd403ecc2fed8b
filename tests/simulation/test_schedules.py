"""Two hundred schedules of faults, and whether the simulation notices what is wrong."""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Final

import pytest

from tests.servers.redis import RedisServer
from tests.servers.redis import redis_server as new_redis_server
from tests.simulation.__main__ import FAULTS, play
from tests.simulation.planted import BUGS, Bug
from tests.simulation.schedule import Schedule, draw
from tests.simulation.shrinking import shrink
from tests.simulation.virtual_redis import Scripts

_AT_ONCE: Final = 25
# Bugs that are found in one of the first few schedules.
_FOUND_SOON: Final = (
    "a delivery that leaves Processing stays in the index",
    "a project that fails holds up the others",
)


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    with new_redis_server() as server:
        yield server


@pytest.mark.parametrize("first", range(1, 201, _AT_ONCE))
def test_the_ledger_is_what_the_protocol_says_whatever_happens(server: RedisServer, first: int) -> None:
    scripts = Scripts()
    happened: Counter[str] = Counter()
    failures: dict[int, str] = {}
    for seed in range(first, first + _AT_ONCE):
        counted, failure, _ = play(draw(seed), server.port, scripts)
        happened.update(counted)
        if failure:
            failures[seed] = failure
    assert not failures, f"`make simulate ARGS='--schedules 1 --seed {min(failures)}'` makes it small: {failures}"
    assert [fault for fault in FAULTS if not happened[fault]] == [], "every kind of fault is among them"


def test_a_seed_plays_the_same_in_another_process(server: RedisServer) -> None:
    command = [sys.executable, "-m", "tests.simulation", "--schedules", "2", "--seed", "7", "--jobs", "1"]
    traces = {
        subprocess.run(
            command, env={**os.environ, "PYTHONHASHSEED": seed}, capture_output=True, text=True, check=True
        ).stdout.rpartition("trace ")[2]
        for seed in ("1", "2")
    }
    assert len(traces) == 1
    assert len({play(draw(seed), server.port, Scripts())[2] for seed in (7, 7, 8)}) == 2


@pytest.mark.parametrize("bug", [bug for bug in BUGS if bug.what in _FOUND_SOON], ids=lambda bug: bug.what)
def test_a_planted_bug_is_found_and_made_small(server: RedisServer, bug: Bug) -> None:
    scripts = Scripts(bug.patches)

    def fails(schedule: Schedule) -> str:
        return play(schedule, server.port, scripts)[1]

    with bug.code():
        schedule = next(drawn for seed in range(1, 20) if fails(drawn := draw(seed)))
        smaller = shrink(schedule, fails)
        assert fails(smaller).startswith("BrokenError: ")
    assert len(smaller.steps) < len(schedule.steps) / 10
    assert not play(smaller, server.port, Scripts())[1], "it is the bug, and not the schedule"


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.what)
def test_every_bug_can_still_be_planted(bug: Bug) -> None:
    Scripts(bug.patches)
    with bug.code():
        pass
