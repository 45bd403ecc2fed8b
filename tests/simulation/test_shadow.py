"""Whatever was lost, after a reconciliation the shadow finds no drift; against legacy numbers only what has a name."""

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.ledger.ledgers import Ledger
from tests.ledger.oracle import ATTEMPTS
from tests.postgres.gateway import Gateway
from tests.servers.redis import RedisServer
from tests.simulation.comparison import said_by_database, said_by_ledger
from tests.simulation.runs import SKEW_US, simulated
from tests.simulation.test_reconciled import fill, reconcile

# What one second's difference between two clocks may make of an age; counts have no such room.
AGE_SECONDS = 1.0
# What the simulated gateway's paths can make of the legacy numbers.
LEGACY_NAMES = {"zero_for_known_group", "source_of_gone_event", "replayed_event", "never_exported"}


def compare(gateway: Gateway, redis_url: str, parity: str) -> tuple[int, dict[str, Any]]:
    """The exit status of one exact comparison, and what it says of each metric."""
    command = [sys.executable, "-m", "otel_queue", "shadow", "compare", "--exact", "--json", "--redis-url", redis_url]
    done = subprocess.run(
        [*command, "--postgres-parity", parity],
        env=os.environ | {"OTEL_QUEUE_POSTGRES_DSN": gateway.dsn.reveal()},
        capture_output=True,
        text=True,
    )
    assert done.stdout, done.stderr
    return done.returncode, {found["metric"]: found for found in json.loads(done.stdout)["metrics"]}


def known(told: dict[str, Any], side: str) -> set[str]:
    return {
        each["difference"] for found in told.values() for each in found["known_differences"] if each["side"] == side
    }


def assert_no_drift(told: dict[str, Any]) -> None:
    for metric, found in told.items():
        if metric == ATTEMPTS:  # compared by its increase: one look has none
            continue
        assert found["drift"] <= (AGE_SECONDS if metric.endswith("_seconds") else 0), found
        assert found["missing"] == {"ledger": 0, "postgres": 0}, found


@pytest.mark.parametrize(("seed", "crashes"), [(21, 0.01), (22, 0.03)])
def test_after_any_run_reconciled_once_there_is_no_drift(
    any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer, seed: int, crashes: float
) -> None:
    with simulated(any_gateway, 600, seed=seed, crashes=crashes, late_workers=True, skew_us=SKEW_US) as run:
        fill(run, ledger, redis_server)
    status, told = compare(any_gateway, redis_server.url, "corrected")
    assert status == 1, "records were lost, and nobody said so"
    assert any(found["drift"] for found in told.values())

    reconcile(any_gateway, redis_server.url)
    status, told = compare(any_gateway, redis_server.url, "legacy")
    assert status == 0, told
    assert_no_drift(told)
    assert not known(told, "ledger")
    assert known(told, "legacy") <= LEGACY_NAMES
    assert "zero_for_known_group" in known(told, "legacy")
    assert said_by_ledger(ledger).families[ATTEMPTS] == said_by_database(any_gateway).families[ATTEMPTS]


def test_with_retention_the_sources_of_gone_events_are_named_and_no_drift(
    partitioned_gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    with simulated(
        partitioned_gateway, 2_000, seed=3, crashes=0.01, late_workers=True, skew_us=SKEW_US, retention_days=1
    ) as run:
        fill(run, ledger, redis_server)
    reconcile(partitioned_gateway, redis_server.url)
    status, told = compare(partitioned_gateway, redis_server.url, "legacy")
    assert status == 0, told
    assert_no_drift(told)
    assert known(told, "ledger") <= {"source_of_gone_event"}
    assert known(told, "legacy") <= LEGACY_NAMES
    assert "replayed_event" in known(told, "legacy")


def test_seed_alone_brings_a_gateway_with_history_into_an_empty_ledger(
    any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    with simulated(any_gateway, 600, seed=31, crashes=0.01, skew_us=SKEW_US):
        pass  # nobody recorded anything
    command = [sys.executable, "-m", "otel_queue", "seed", "--pause", "0", "--redis-url", redis_server.url]
    environment = os.environ | {"OTEL_QUEUE_POSTGRES_DSN": any_gateway.dsn.reveal()}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    status, told = compare(any_gateway, redis_server.url, "corrected")
    assert status == 0, told
    assert_no_drift(told)
    assert ledger.differences() == []
