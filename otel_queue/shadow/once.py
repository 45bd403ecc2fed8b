"""One comparison at once, by whoever asks: no lease, no journal."""

import time
from collections.abc import Mapping
from typing import NamedTuple

from otel_queue.catalog import CATALOG
from otel_queue.config import Config, Secret
from otel_queue.config.settings import DOMAIN_METRICS
from otel_queue.errors import ReadError
from otel_queue.ledger.connect import ledger_reader
from otel_queue.postgres.aggregations import read_families
from otel_queue.postgres.database import Database
from otel_queue.postgres.dsn import Dsn
from otel_queue.shadow.comparison import Comparison
from otel_queue.shadow.legacy import name_differences
from otel_queue.shadow.shadow import Looks, reading_of
from otel_queue.shadow.tolerance import exact, tolerance


class Once(NamedTuple):
    """What one look at both sides found, at `time` (Redis clock); `failures` are metrics without a comparison."""

    time: float
    comparisons: Mapping[str, Comparison]
    legacy: Mapping[str, Mapping[str, int]]
    failures: Mapping[str, str]


def compare_once(config: Config, dsn: Secret, *, exactly: bool = False) -> Once:
    """Reads both sides now, and compares every gauge; a counter needs the increase between two readings.

    `exactly` allows no difference: for systems at rest. With `postgres.parity` legacy the legacy numbers are read in
    the same transaction. Raises ReadError.
    """
    looks = Looks(reading_of(ledger_reader(config, is_patient=True)))
    looks.before()  # reads everything: the next time is quick, and tells Redis's clock to milliseconds
    looked = 0.0

    def before() -> None:
        nonlocal looked
        looks.before()
        looked = time.monotonic()

    database = Database(Dsn(dsn), statement_timeout_seconds=config.postgres.statement_timeout_seconds)
    with database.reading(before) as reading:
        looks.begun()
        now = looks.of(DOMAIN_METRICS[0])[0].time + reading.began - looked
        corrected = read_families(reading, "corrected", now, _nothing)
        legacy = read_families(reading, "legacy", now, _nothing) if config.postgres.parity == "legacy" else None
    comparisons: dict[str, Comparison] = {}
    failures: dict[str, str] = {}
    families = {family.name: family for family in corrected.families}
    for metric in DOMAIN_METRICS:
        if CATALOG[metric].kind == "counter":
            failures[metric] = "is compared by its increase between two readings, which `serve` makes"
        elif metric not in families:
            failures[metric] = "could not be read from the database: " + ", ".join(corrected.failures)
        else:
            rule = exact(metric) if exactly else tolerance(metric, config.metrics.get(metric))
            comparisons[metric] = looks.compare(rule, families[metric], now, reading.lag_seconds)
    if not comparisons:
        raise ReadError(next(iter(corrected.failures), "error_reply"), f"{database}: no metric could be read")
    named = {} if legacy is None else name_differences(legacy.families, corrected.families)
    return Once(now, comparisons, named, failures)


def _nothing() -> None:
    """There is no lease to renew."""
