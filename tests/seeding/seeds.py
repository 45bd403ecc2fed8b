"""A seed in few words, and what it should lead to."""

import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from typing import Any

from otel_queue.config import RedisConfig
from otel_queue.ledger.counts import CountsStore
from otel_queue.ledger.store import LedgerStore
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn
from otel_queue.postgres.rows import Rows
from otel_queue.redis_client import connect
from otel_queue.seeding.pace import Pace
from otel_queue.seeding.progress import Progress
from otel_queue.seeding.seed import Seed, Seeded
from tests.ledger.ledgers import Ledger
from tests.ledger.oracle import Families
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS, Gateway

# The tables' times are minutes apart; a test takes less.
AGE_TOLERANCE_SECONDS = 40.0


def rows_of(gateway: Gateway, **arguments: Any) -> Rows:
    """Small slices, so that there are several."""
    database = Database(Dsn(gateway.dsn), statement_timeout_seconds=30.0)
    chosen: dict[str, Any] = {"slice_rows": 50, "batch_rows": 16, "pauses_seconds": ()} | arguments
    return Rows(database, **chosen)


@contextmanager
def seeds(gateway: Gateway, url: str, **arguments: Any) -> Iterator[Seed]:
    with (
        closing(LedgerStore(connect(RedisConfig(url=url)))) as store,
        closing(CountsStore(connect(RedisConfig(url=url)))) as counts,
    ):
        pace = Pace(0.0, threading.Event(), patience_seconds=())
        yield Seed(rows_of(gateway, **arguments), store, counts, pace=pace, progress=Progress(0))


def seed(gateway: Gateway, url: str, **arguments: Any) -> Seeded:
    with seeds(gateway, url, **arguments) as opened:
        return opened.run()


def corrected(gateway: Gateway) -> Families:
    """What the database says, as the ledger's families should be."""
    return {name: dict(family.samples) for name, family in gateway.families("corrected").items()}


def assert_agree(ledger: Ledger, gateway: Gateway) -> None:
    """Every family of the ledger is the database's: the same series with the same values, ages as of about now."""
    ours, theirs = ledger.families(), corrected(gateway)
    for name in (EVENTS, DELIVERIES, ATTEMPTS):
        assert ours[name] == theirs[name], name
    for name in (EVENT_BACKLOG, DELIVERY_BACKLOG):
        assert ours[name].keys() == theirs[name].keys(), name
        for labels, age in ours[name].items():
            assert abs(age - theirs[name][labels]) < AGE_TOLERANCE_SECONDS, (name, labels, age, theirs[name][labels])
