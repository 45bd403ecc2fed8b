"""Whatever was lost on the way, one reconciliation makes the ledger agree with the rows."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.ledger.ledgers import Ledger, agree_on
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, EVENTS, Families
from tests.postgres.gateway import Gateway
from tests.servers.redis import RedisServer
from tests.simulation.comparison import (
    GONE,
    Said,
    assert_same_backlogs,
    said_by_database,
    said_by_ledger,
    things_in_database,
)
from tests.simulation.runs import SKEW_US, Run, compared, simulated

# Series of deliveries without their source.
SOURCE = 5


def reconcile(gateway: Gateway, redis_url: str) -> Any:
    """The report of a run that left nothing."""
    command = [sys.executable, "-m", "otel_queue", "reconcile", "--json", "--pause", "0", "--redis-url", redis_url]
    environment = os.environ | {"OTEL_QUEUE_POSTGRES_DSN": gateway.dsn.reveal()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads(done.stdout)


def fill(run: Run, ledger: Ledger, redis_server: RedisServer) -> None:
    """What was told, in a ledger that is as old as the gateway: attempts are counted since its birth."""
    run.fill(ledger)
    with redis_server.client() as client:
        agree_on(client, birth_us=run.simulation.start_us)


def without_sources(families: Families) -> dict[tuple[str, ...], float]:
    found: dict[tuple[str, ...], float] = {}
    for labels, count in families[DELIVERIES].items():
        key = (*labels[:SOURCE], *labels[SOURCE + 1 :])
        found[key] = found.get(key, 0.0) + count
    return found


@pytest.mark.parametrize(("seed", "skew_us"), [(1, 0), (2, SKEW_US)])
def test_after_crashes_and_late_workers_the_ledger_is_made_to_say_what_the_database_says(
    any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer, seed: int, skew_us: int
) -> None:
    with simulated(any_gateway, 800, seed=seed, crashes=0.01, late_workers=True, skew_us=skew_us) as run:
        fill(run, ledger, redis_server)
    before = compared(any_gateway, redis_server)
    assert before.missing
    assert before.differing
    report = reconcile(any_gateway, redis_server.url)
    assert report["repairs"]
    assert not report["moving"]
    assert compared(any_gateway, redis_server) == (set(), set(), {})
    assert ledger.differences() == []
    held, asked = said_by_ledger(ledger), said_by_database(any_gateway)
    assert held.counts() == asked.counts()
    # Creation times are the rows' own now.
    assert_same_backlogs(held, asked, within_seconds=0.001)
    again = reconcile(any_gateway, redis_server.url)
    assert again["repairs"] == []


@pytest.mark.parametrize(("seed", "skew_us"), [(1, 0), (2, SKEW_US)])
def test_after_retention_only_the_sources_of_gone_events_differ_and_attempts_that_went(
    partitioned_gateway: Gateway, ledger: Ledger, redis_server: RedisServer, seed: int, skew_us: int
) -> None:
    with simulated(
        partitioned_gateway, 2_000, seed=seed, crashes=0.01, late_workers=True, skew_us=skew_us, retention_days=1
    ) as run:
        fill(run, ledger, redis_server)
        gone = run.gone()
    reconcile(partitioned_gateway, redis_server.url)
    found = compared(partitioned_gateway, redis_server)
    assert found.missing == set()
    assert found.differing == {}
    assert {each.kind for each in found.beyond} == {"attempt"}
    assert found.beyond <= gone
    assert ledger.differences() == []
    held, asked = said_by_ledger(ledger), said_by_database(partitioned_gateway)
    assert held.families[EVENTS] == asked.families[EVENTS]
    assert without_sources(held.families) == without_sources(asked.families)
    assert_sources_of_gone_events_alone_differ(held, asked, without_event(partitioned_gateway))
    assert all(held.families[ATTEMPTS][labels] >= count for labels, count in asked.families[ATTEMPTS].items())
    assert reconcile(partitioned_gateway, redis_server.url)["repairs"] == []


def without_event(gateway: Gateway) -> int:
    return sum(labels[-1:] == (GONE,) for labels in things_in_database(gateway).values())


def assert_sources_of_gone_events_alone_differ(held: Said, asked: Said, most: int) -> None:
    """No more deliveries than have lost their event are counted under another source."""
    ours, theirs = held.families[DELIVERIES], asked.families[DELIVERIES]
    moved = sum(abs(ours.get(labels, 0) - theirs.get(labels, 0)) for labels in ours.keys() | theirs.keys())
    assert moved <= 2 * most
