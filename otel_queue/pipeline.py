"""The composition root: configuration in, lanes and readers out."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from otel_queue.asynq.families import memory_families, snapshot_families, task_type_families
from otel_queue.asynq.inspector import Inspector
from otel_queue.catalog import exported_by
from otel_queue.config import (
    Config,
    QueueConfig,
    Secret,
    export_interval_seconds,
    otlp_protocol,
    otlp_wanted,
    parse_listen,
)
from otel_queue.errors import ReadError
from otel_queue.export.instruments import meter_provider
from otel_queue.export.otlp import OtlpPush, otlp_exporter
from otel_queue.export.points import SeriesPoints
from otel_queue.export.resource import build_resource
from otel_queue.export.self_metrics import self_families
from otel_queue.export.text import TextExposition
from otel_queue.ledger.connect import ledger_reader, ledger_upkeep
from otel_queue.ledger.families import ledger_families
from otel_queue.ledger.families import self_families as self_families_of_ledger
from otel_queue.ledger.upkeep import day_before
from otel_queue.redis_client import connect
from otel_queue.samples import Family
from otel_queue.sources import Collected, Lane
from otel_queue.status import Exposition, LaneStatus, Readiness, Status
from otel_queue.version import __version__

_SERVICE_NAME: Final = "otel-queue"
# A slow lane's values outlive this many of its own intervals.
_SLOW_LANE_INTERVALS: Final = 3
# How often `serve` looks whether there is a new generation of the database's numbers.
_POSTGRES_LOOK_SECONDS: Final = 5.0
# How often `serve` looks for days to expire; every replica may, since a day expires once.
_RETENTION_SECONDS: Final = 3600.0
# Aggregated when they are read: they go to the readers beside the SDK's instruments.
_AGGREGATED: Final = exported_by("ledger", __version__)


class Pipeline:
    """Both ways out of one set of lanes: `scrape` for pull, a ticker for OTLP push.

    Every reader refreshes the lanes before it collects; lanes collect once for all readers of a moment. Raises
    ConfigError for settings that cannot be used; connects to Redis only when something is read.
    """

    def __init__(self, config: Config) -> None:
        self._config = config
        self._started_at = time.time()
        self._redis = str(config.redis.location)
        ledger = str(config.ledger_redis.location)
        self._sources = {"ledger": ledger, "retention": ledger, "postgres": "PostgreSQL"}
        self._lanes, self._slow_lanes = _lanes(config), _slow_lanes(config)
        self._probe = _inspector(config)
        self._collected = threading.local()
        self._text = TextExposition(
            share_seconds=config.queue.min_interval_seconds,
            aggregated=self._aggregated,
            attributes=config.attributes,
        )
        self._push = self._build_push() if otlp_wanted(config) else None
        readers = [self._text.reader] + ([self._push.reader] if self._push else [])
        resource = build_resource(_SERVICE_NAME, parse_listen(config.server.listen)[1])
        rows = [*exported_by("inspector", __version__), *exported_by("self", __version__)]
        self._provider = meter_provider(rows, self._family, readers, resource, config.attributes)

    def start(self) -> None:
        """Begins to push, if OTLP is wanted, and to read, so that the first scrape finds the slow lanes filled."""
        self._refresh(0.0)
        if self._push:
            self._push.start()

    def scrape(self, accept: str, budget_seconds: float | None) -> Exposition:
        """The samples of now in the best format for the Accept header, within the budget whatever Redis does.

        When Redis does not answer in time, the page says what is known: lanes that are down, and no series older
        than their limit.
        """
        limit = self._config.server.scrape_budget_seconds
        with self._collection(limit if budget_seconds is None else max(0.0, min(budget_seconds, limit))):
            content_type, body = self._text.render(accept)
        return Exposition(content_type, body)

    def ready(self) -> Readiness:
        """Whether Redis can be read, found out by reading it."""
        try:
            self._probe.ping()
        except ReadError as error:
            return Readiness(False, str(error))
        return Readiness(True, f"{self._redis} can be read")

    def status(self) -> Status:
        """How the lanes are doing, from memory alone."""
        lanes = [
            LaneStatus(
                state.name,
                self._sources.get(state.name, self._redis),
                state.up,
                state.age_seconds,
                state.last_error,
            )
            for state in (lane.state() for lane in (*self._lanes, *self._slow_lanes))
        ]
        if self._push:
            state = self._push.state()
            lanes.append(LaneStatus(state.name, self._push.target, state.up, state.age_seconds, state.last_error))
        push = self._push.target if self._push else "off"
        return Status(__version__, self._started_at, tuple(lanes), push)

    def shutdown(self) -> bool:
        """Pushes a last time and stops, within `otlp.shutdown_timeout_seconds`; False if that push failed."""
        return self._push.shutdown(self._config.otlp.shutdown_timeout_seconds) if self._push else True

    def _build_push(self) -> OtlpPush:
        protocol = otlp_protocol()
        points = SeriesPoints(self._config.attributes)
        return OtlpPush(
            otlp_exporter(protocol),
            interval_seconds=export_interval_seconds(),
            collection=lambda: self._collection(self._config.server.scrape_budget_seconds),
            target=f"OTLP {protocol}",
            complete=lambda data: points.beside(data, self._aggregated()),
        )

    @contextmanager
    def _collection(self, budget_seconds: float) -> Iterator[None]:
        """Makes the lanes fresh and holds on to what they have, so that one collection sees one snapshot."""
        self._refresh(budget_seconds)
        self._collected.families = self._families()
        try:
            yield
        finally:
            self._collected.families = {}

    def _refresh(self, budget_seconds: float) -> None:
        for lane in self._slow_lanes:
            lane.refresh(0.0)  # in the background: nobody waits for a sample of memory
        deadline = time.monotonic() + budget_seconds
        for lane in self._lanes:
            lane.refresh(0.0)  # side by side
        for lane in self._lanes:
            lane.wait(deadline - time.monotonic())

    def _families(self) -> dict[str, Family]:
        found: dict[str, Family] = {}
        lanes = (*self._lanes, *self._slow_lanes)
        for lane in lanes:
            found |= lane.families()
        states = [lane.state() for lane in lanes]
        return found | self_families([*states, self._push.state()] if self._push else states)

    def _family(self, name: str) -> Family | None:
        """The family for the collection that runs in this thread; the SDK's callbacks ask for it."""
        families: dict[str, Family] = getattr(self._collected, "families", {})
        return families.get(name)

    def _aggregated(self) -> list[Family]:
        """The families of this collection that do not come through instruments."""
        families: dict[str, Family] = getattr(self._collected, "families", {})
        return [families[row.name] for row in _AGGREGATED if row.name in families]


def _inspector(config: Config) -> Inspector:
    queue = config.queue
    return Inspector(
        connect(config.redis),
        timeout_seconds=queue.timeout_seconds,
        groups_cap=queue.groups_cap,
        with_workers=queue.workers,
    )


def _lanes(config: Config) -> list[Lane]:
    """The lanes that every reader waits for."""
    queue, ledger = config.queue, config.ledger
    lanes = [
        Lane(
            "queue",
            _snapshot_collector(_inspector(config), queue),
            min_interval_seconds=queue.min_interval_seconds,
            max_staleness_seconds=queue.max_staleness_seconds,
        )
    ]
    if ledger.enabled:
        lanes.append(
            Lane(
                "ledger",
                _ledger_collector(config),
                min_interval_seconds=queue.min_interval_seconds,
                max_staleness_seconds=ledger.max_staleness_seconds,
            )
        )
    return lanes


def _slow_lanes(config: Config) -> list[Lane]:
    """The lanes on a slow cadence that are switched on; each has its own connection."""
    queue = config.queue
    slow: list[tuple[str, float, Callable[[], Collected]]] = [
        ("memory", queue.memory_interval_seconds, _memory_collector(_inspector(config))),
        ("task_types", queue.task_types_interval_seconds, _task_type_collector(_inspector(config), queue)),
    ]
    if config.ledger.enabled and config.ledger.retention_days:
        slow.append(("retention", _RETENTION_SECONDS, _retention_collector(config)))
    if config.postgres.dsn is not None and not config.ledger.enabled:
        slow.append(("postgres", _POSTGRES_LOOK_SECONDS, _postgres_collector(config, config.postgres.dsn)))
    return [
        Lane(
            name,
            collect,
            min_interval_seconds=interval,
            max_staleness_seconds=_staleness(name, interval, config),
        )
        for name, interval, collect in slow
        if interval > 0
    ]


def _staleness(name: str, interval: float, config: Config) -> float:
    """How long a slow lane's values hold: some of its own intervals, and the time that a collection may take."""
    if name == "postgres":
        postgres = config.postgres
        # The source itself leaves out what is older than three of its intervals.
        return _SLOW_LANE_INTERVALS * postgres.interval_seconds + 5 * postgres.statement_timeout_seconds
    return _SLOW_LANE_INTERVALS * interval + config.queue.max_staleness_seconds


def _postgres_collector(config: Config, dsn: Secret) -> Callable[[], Collected]:
    from otel_queue.postgres.source import PostgresSource  # psycopg is an extra

    postgres = config.postgres
    source = PostgresSource(
        dsn,
        connect(config.ledger_redis),
        namespace=config.ledger.namespace,
        parity=postgres.parity,
        use_snapshot_tables=postgres.use_snapshot_tables,
        interval_seconds=postgres.interval_seconds,
        statement_timeout_seconds=postgres.statement_timeout_seconds,
    )

    def collect() -> Collected:
        collected = source.collect()
        oldest = min((family.time for family in collected.families), default=time.time())
        return replace(collected, age_seconds=max(time.time() - oldest, 0.0))

    return collect


def _snapshot_collector(inspector: Inspector, queue: QueueConfig) -> Callable[[], Collected]:
    def collect() -> Collected:
        snapshot = inspector.snapshot()
        return Collected(snapshot_families(snapshot, convoy=queue.convoy), snapshot.failures)

    return collect


def _ledger_collector(config: Config) -> Callable[[], Collected]:
    ledger = config.ledger
    reader = ledger_reader(config)

    def collect() -> Collected:
        snapshot = reader.snapshot()
        exported = ledger_families(snapshot, lean=ledger.labels == "lean", most_series=ledger.most_series)
        return Collected([*exported.families, *self_families_of_ledger(snapshot, exported)], snapshot.failures)

    return collect


def _retention_collector(config: Config) -> Callable[[], Collected]:
    upkeep = ledger_upkeep(config)

    def collect() -> Collected:
        through = day_before(config.ledger.retention_days)
        for project in upkeep.projects():
            upkeep.expire(project, through)
        return Collected([])

    return collect


def _memory_collector(inspector: Inspector) -> Callable[[], Collected]:
    def collect() -> Collected:
        failures: Counter[str] = Counter()
        usage = inspector.memory_usage(failures=failures)
        if failures and all(size is None for size in usage.values()):
            raise ReadError(next(iter(failures)), f"memory usage of all {len(usage)} queues: {_words(failures)}")
        return Collected(memory_families(usage, time.time()), failures)

    return collect


def _task_type_collector(inspector: Inspector, queue: QueueConfig) -> Callable[[], Collected]:
    def collect() -> Collected:
        failures: Counter[str] = Counter()
        types = inspector.sample_task_types(size=queue.task_types_sample, failures=failures)
        return Collected(task_type_families(types, time.time()), failures)

    return collect


def _words(failures: Counter[str]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in failures.items())
