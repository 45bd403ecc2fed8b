"""The database: what metrics cost it each minute, counted and from the ledger, and what the way there costs once."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from otel_queue.catalog import CATALOG
from otel_queue.config import Config, DomainConfig, PostgresConfig, QueueConfig, RedisConfig
from otel_queue.pipeline import Pipeline
from tests.bench.agreement import agree
from tests.bench.result import Result
from tests.ledger.ledgers import Ledger
from tests.ledger.oracle import Families
from tests.postgres import gateway as names
from tests.postgres.gateway import HERE, Gateway
from tests.seeding.seeds import AGE_TOLERANCE_SECONDS
from tests.servers.postgres import postgres_server
from tests.servers.redis import redis_server
from tests.soak.seeding import Plan, fill

EVENTS, DELIVERIES = 1_000_000, 3_000_000
SCRAPES = 20
COUNTED = (names.EVENTS, names.DELIVERIES)
AGES = (names.EVENT_BACKLOG, names.DELIVERY_BACKLOG)
SETTINGS = (
    "shared_buffers=256MB",
    "max_wal_size=4GB",
    "work_mem=64MB",
    "shared_preload_libraries=pg_stat_statements",
)


def time_spent(bench: str) -> Iterator[Result]:
    """Seconds of statements in the steady state of each: a refresh a minute, and scrapes of a ledger.

    The ledger is seeded first, and its exporter must show every number of the corrected refresh.
    """
    with _gateway() as (gateway, ledger):
        _run(gateway, ledger, "seed")
        counted = {parity: refresh(gateway, parity) for parity in ("legacy", "corrected")}
        exporter = _exporter(gateway, ledger)
        _agree(_shown(exporter), gateway)
        with statements(gateway) as spent:
            for _ in range(SCRAPES):
                exporter.scrape("", None)
        yield Result(
            bench,
            spent["seconds"],
            "database seconds a minute, with the ledger",
            0.0,
            {
                "legacy_refresh_seconds": counted["legacy"],
                "corrected_refresh_seconds": counted["corrected"],
                "scrapes": SCRAPES,
                "statements_of_them": spent["calls"],
                "events": EVENTS,
                "deliveries": DELIVERIES,
            },
        )


def once(bench: str) -> Iterator[Result]:
    """Database seconds of one seed, and of one reconcile at rest behind it, in refreshes of the gateway's numbers.

    After each the ledger must say every number of the corrected refresh.
    """
    with _gateway() as (gateway, ledger):
        one_refresh = refresh(gateway, "legacy")
        for command in ("seed", "reconcile"):
            with statements(gateway) as spent:
                told = _run(gateway, ledger, command)
            _agree(ledger.families(), gateway)
            detail = {"seconds": spent["seconds"], "refresh_seconds": one_refresh, "wall_seconds": told["seconds"]}
            yield Result(f"{bench}: {command}", spent["seconds"] / one_refresh, "refreshes", None, detail)


def _agree(ours: Families, gateway: Gateway) -> None:
    """Raises DisagreementError unless the families are the database's, ages within AGE_TOLERANCE_SECONDS."""
    found = gateway.read("corrected", statement_timeout_seconds=600.0)
    assert not found.failures, found.failures
    theirs = {family.name: dict(family.samples) for family in found.families}
    for name in (*COUNTED, *AGES):
        tolerance = AGE_TOLERANCE_SECONDS if name in AGES else 0.0
        agree(_named(name, ours), _named(name, theirs), tolerance=tolerance)


def _named(name: str, families: Families) -> dict[tuple[str, ...], float]:
    return {(name, *labels): value for labels, value in families[name].items()}


def _shown(exporter: Pipeline) -> Families:
    """The domain's families on the page of the exporter."""
    page = exporter.scrape("", None).body.decode()
    shown = {family.name: family.samples for family in text_string_to_metric_families(page)}
    return {
        name: {tuple(sample.labels[key] for key in CATALOG[name].keys): sample.value for sample in shown.get(name, ())}
        for name in (*COUNTED, *AGES)
    }


@contextlib.contextmanager
def _gateway() -> Iterator[tuple[Gateway, Ledger]]:
    with postgres_server(settings=SETTINGS) as server, redis_server() as redis:
        with server.connect() as connection:
            connection.execute((HERE / "schema.sql").read_bytes())
            connection.execute("CREATE EXTENSION pg_stat_statements")
        with closing(Gateway(server, server.database)) as gateway, closing(Ledger(redis.url)) as ledger:
            fill(gateway, Plan(deliveries=DELIVERIES, events=EVENTS))
            gateway.execute("VACUUM ANALYZE")
            yield gateway, ledger


def refresh(gateway: Gateway, parity: Any) -> float:
    """Database seconds of one reading of all numbers."""
    with statements(gateway) as spent:
        gateway.read(parity, statement_timeout_seconds=600.0)
    return spent["seconds"]


@contextlib.contextmanager
def statements(gateway: Gateway) -> Iterator[dict[str, float]]:
    """What statements of the block took, without those that ask for it."""
    gateway.execute("SELECT pg_stat_statements_reset()")
    spent: dict[str, float] = {}
    yield spent
    [(milliseconds, calls)] = gateway.execute(
        "SELECT coalesce(sum(total_exec_time), 0), coalesce(sum(calls), 0) FROM pg_stat_statements"
        " WHERE query NOT LIKE %s AND query NOT LIKE %s",
        "%pg_stat_statements%", "%pg_stat_clear%",
    )  # fmt: skip
    spent |= {"seconds": float(milliseconds) / 1000, "calls": float(calls)}


def _exporter(gateway: Gateway, ledger: Ledger) -> Pipeline:
    return Pipeline(
        Config(
            redis=RedisConfig(url=ledger.url),
            queue=QueueConfig(min_interval_seconds=0.0, memory_interval_seconds=0.0),
            domain=DomainConfig(source="ledger", fallback="postgres"),
            postgres=PostgresConfig(dsn=gateway.dsn),
        )
    )


def _run(gateway: Gateway, ledger: Ledger, command: str) -> dict[str, Any]:
    program = str(Path(sys.executable).parent / "otel-queue")
    done = subprocess.run(
        [program, command, "--redis-url", ledger.url, "--json", "--pause", "0"],
        env=os.environ | {"OTEL_QUEUE_POSTGRES_DSN": gateway.dsn.reveal()},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    told: dict[str, Any] = json.loads(done.stdout)
    return told
