"""From the configuration to the ledger's parts.

With `config.followed` each function gives the same part of the follower's ledger.
"""

from typing import Final

from otel_queue.config import Config, RedisConfig
from otel_queue.ledger.counts import CountsStore
from otel_queue.ledger.guard import GuardedLink
from otel_queue.ledger.merge import Side
from otel_queue.ledger.reader import LedgerReader
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.tracked import Tracked
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.redis_client import PlacedLink, connect
from otel_queue.shard import WHOLE, Shard

# A person waits longer for a first read of everything than a scrape does.
_PATIENCE_SECONDS: Final = 60.0
# The counts of a large day take a while to be put.
_PUT_SECONDS: Final = 30.0


def ledger_store(config: Config, redis: RedisConfig | None = None) -> LedgerStore:
    """A store on a connection of its own, to `redis` instead of the configured one if it is given."""
    link = _guarded(config, redis or config.ledger_redis)
    return LedgerStore(link, namespace=config.ledger.namespace)


def ledger_counts(config: Config) -> CountsStore:
    """A store of counts on a connection of its own."""
    link = _guarded(config, config.ledger_redis)
    return CountsStore(link, namespace=config.ledger.namespace, timeout_seconds=_PUT_SECONDS)


def _guarded(config: Config, redis: RedisConfig) -> PlacedLink:
    link = connect(redis)
    limit = config.ledger.memory_limit_bytes
    return GuardedLink(link, limit) if limit else link


def ledger_reader(config: Config, *, shard: Shard = WHOLE, is_patient: bool = False) -> LedgerReader:
    """A reader of the shard's projects on a connection of its own; a patient one has a minute at least."""
    ledger = config.ledger
    timeout = max(ledger.timeout_seconds, _PATIENCE_SECONDS) if is_patient else ledger.timeout_seconds
    link = connect(config.ledger_redis)
    return LedgerReader(link, namespace=ledger.namespace, timeout_seconds=timeout, shard=shard)


def ledger_tracked(config: Config) -> Tracked:
    """Single ids, on a connection of its own."""
    link = connect(config.ledger_redis)
    return Tracked(link, namespace=config.ledger.namespace)


def ledger_upkeep(config: Config) -> Upkeep:
    """Upkeep on a connection of its own."""
    return Upkeep(connect(config.ledger_redis), namespace=config.ledger.namespace)


def ledger_side(config: Config) -> Side:
    """A ledger as a merge needs it, called by its namespace and Redis."""
    name = f"ledger {config.ledger.namespace!r} at {config.ledger_redis.location}"
    parts = ledger_store(config), ledger_counts(config), ledger_upkeep(config)
    return Side(name, connect(config.ledger_redis), *parts, namespace=config.ledger.namespace)
