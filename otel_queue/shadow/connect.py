"""From the configuration to the shadow's parts, each on connections of its own."""

from otel_queue.config import Config
from otel_queue.ledger.connect import ledger_reader
from otel_queue.redis_client import connect
from otel_queue.shadow.journal import Journal
from otel_queue.shadow.shadow import Shadow, reading_of
from otel_queue.shadow.tolerance import tolerances


def shadow_journal(config: Config) -> Journal:
    """The journal, which is with the ledger."""
    ledger = config.ledger
    return Journal(connect(config.ledger_redis), namespace=ledger.namespace, timeout_seconds=ledger.timeout_seconds)


def shadow_witness(config: Config) -> Shadow | None:
    """The witness that compares what is configured; None if nothing is.

    It reads all projects, whatever the exporter's shard: the database is read for all.
    """
    compared = tolerances(config)
    return Shadow(reading_of(ledger_reader(config)), shadow_journal(config), compared) if compared else None
