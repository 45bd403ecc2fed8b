"""From the configuration to the ledger's parts."""

from otel_queue.config import Config, RedisConfig
from otel_queue.ledger.batches import Retention
from otel_queue.ledger.guard import GuardedLink
from otel_queue.ledger.reader import LedgerReader
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.redis_client import RedisLink, connect


def ledger_store(config: Config, redis: RedisConfig | None = None) -> LedgerStore:
    """A store on a connection of its own, to `redis` instead of the configured one if it is given."""
    ledger = config.ledger
    link: RedisLink = connect(redis or config.ledger_redis)
    if ledger.memory_limit_bytes:
        link = GuardedLink(link, ledger.memory_limit_bytes)
    retention = Retention(
        track_days=ledger.track_days,
        attempt_days=ledger.attempt_days,
        max_skew_us=int(ledger.max_skew_seconds * 1e6),
        most_groups=ledger.most_groups,
    )
    return LedgerStore(link, namespace=ledger.namespace, retention=retention)


def ledger_reader(config: Config, timeout_seconds: float | None = None) -> LedgerReader:
    """A reader on a connection of its own."""
    ledger = config.ledger
    timeout = ledger.timeout_seconds if timeout_seconds is None else timeout_seconds
    return LedgerReader(connect(config.ledger_redis), namespace=ledger.namespace, timeout_seconds=timeout)


def ledger_upkeep(config: Config) -> Upkeep:
    """Upkeep on a connection of its own."""
    return Upkeep(connect(config.ledger_redis), namespace=config.ledger.namespace)
