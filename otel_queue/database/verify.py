"""A proof on demand: the follower's ledger beside the rows, counted whole."""

import time
from typing import Final, NamedTuple

from otel_queue.catalog import CATALOG, EVENT_BACKLOG
from otel_queue.config import Config
from otel_queue.errors import ConfigError, ReadError
from otel_queue.ledger.connect import ledger_reader
from otel_queue.ledger.families import ledger_families
from otel_queue.postgres.aggregations import read_families
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn

_SECONDS: Final = CATALOG[EVENT_BACKLOG].unit
# Ages are of two moments, which are this far apart at most when a look is due between them.
_AGE_LOOKS: Final = 2


class Difference(NamedTuple):
    """A series with two values; None where a side has none."""

    metric: str
    labels: tuple[str, ...]
    ledger: float | None
    database: float | None


def verify(config: Config) -> list[Difference]:
    """Every series of the domain that the ledger says otherwise than the rows do, sorted.

    Counts every row, so it costs the database what one of its own refreshes does. Equal at rest, after a sweep: what
    changed since the last look differs. A count of 0 is none. Raises ReadError.
    """
    if config.postgres.dsn is None:
        raise ConfigError(["postgres.dsn is not set: the rows come from the gateway's database"])
    snapshot = ledger_reader(config.followed, is_patient=True).snapshot()
    if snapshot.failures:
        reason = next(iter(snapshot.failures))
        raise ReadError(reason, f"{sum(snapshot.failures.values())} projects of the ledger cannot be read: {reason}")
    database = Database(Dsn(config.postgres.dsn), statement_timeout_seconds=config.postgres.statement_timeout_seconds)
    with database.reading() as reading:
        found = read_families(reading, "corrected", time.time(), lambda: None)
    if found.failures:
        reason = next(iter(found.failures))
        raise ReadError(reason, f"not all rows could be counted: {reason}")
    ours = {family.name: dict(family.samples) for family in ledger_families(snapshot).families}
    tolerance = _AGE_LOOKS * config.follow.look_seconds
    differences: list[Difference] = []
    for family in found.families:
        mine, theirs = ours.get(family.name, {}), dict(family.samples)
        is_age = CATALOG[family.name].unit == _SECONDS
        for labels in mine.keys() | theirs.keys():
            held, counted = mine.get(labels), theirs.get(labels)
            if abs((held or 0.0) - (counted or 0.0)) > (tolerance if is_age else 0.0):
                differences.append(Difference(family.name, labels, held, counted))
    return sorted(differences, key=lambda each: each[:2])
