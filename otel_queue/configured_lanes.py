"""The lanes that a configuration asks for, each with a connection of its own."""

import logging
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from typing import Final

from otel_queue.asynq.connect import queue_inspector
from otel_queue.asynq.families import memory_families, snapshot_families, task_type_families
from otel_queue.asynq.inspector import Inspector
from otel_queue.config import DOMAIN_METRICS, Config, QueueConfig, Secret
from otel_queue.errors import ReadError, WriteError
from otel_queue.lane import Collected, Lane
from otel_queue.ledger.connect import ledger_reader, ledger_upkeep
from otel_queue.ledger.families import held_family, ledger_families, tally_families
from otel_queue.ledger.held import HeldCounters
from otel_queue.ledger.store import OF_ONE_PROJECT
from otel_queue.plural import number_of
from otel_queue.redis_client import connect
from otel_queue.samples import Family
from otel_queue.selection import Selection
from otel_queue.series_budget import SeriesBudget
from otel_queue.shadow.connect import shadow_journal, shadow_witness
from otel_queue.shadow.families import shadow_families
from otel_queue.shadow.shadow import Shadow
from otel_queue.shadow.tolerance import tolerances
from otel_queue.shadow.verdict import max_age_seconds
from otel_queue.shard import Shard

# A slow lane's values outlive this many of its own intervals.
_SLOW_LANE_INTERVALS: Final = 3
# How often `serve` looks whether there is a new generation of the database's numbers, or a new comparison of them, if
# they do not come more often.
_LOOK_SECONDS: Final = 5.0
_log: Final = logging.getLogger(__name__)

# How often `serve` looks for days to expire; every replica may, since a day expires once.
_RETENTION_SECONDS: Final = 3600.0
# Reasons that are a project's own: its keys are damaged, and the lane works for all others.
_OF_ONE_PROJECT: Final = OF_ONE_PROJECT | {"bad_value", "protocol"}
# So many projects whose days could not be expired are named.
_REFUSED_SHOWN: Final = 10


def selection(config: Config) -> Selection:
    """Where the domain metrics come from."""
    domain = config.domain
    return Selection(
        {metric: config.sources_of(metric) for metric in DOMAIN_METRICS},
        fallback_after_seconds=domain.fallback_after_seconds,
        return_after_seconds=domain.return_after_seconds,
    )


def quick_lanes(config: Config, budget: SeriesBudget) -> list[Lane]:
    """The lanes that every reader waits for; `budget` is that of all sources."""
    queue, ledger = config.queue, config.ledger
    lanes = [
        Lane(
            "queue",
            _snapshot_collector(queue_inspector(config), queue),
            min_interval_seconds=queue.min_interval_seconds,
            max_staleness_seconds=queue.max_staleness_seconds,
        )
    ]
    if config.reads("ledger"):
        lanes.append(
            Lane(
                "ledger",
                _ledger_collector(config, budget),
                min_interval_seconds=queue.min_interval_seconds,
                max_staleness_seconds=ledger.max_staleness_seconds,
            )
        )
    return lanes


def slow_lanes(config: Config, budget: SeriesBudget) -> list[Lane]:
    """The lanes on a slow cadence that are switched on; they are read in the background."""
    queue = config.queue
    slow: list[tuple[str, float, Callable[[], Collected]]] = [
        ("memory", queue.memory_interval_seconds, _memory_collector(queue_inspector(config))),
        ("task_types", queue.task_types_interval_seconds, _task_type_collector(queue_inspector(config), queue)),
    ]
    if config.reads("ledger"):
        slow.append(("retention", _RETENTION_SECONDS, _retention_collector(config)))
    if config.reads("postgres") and config.postgres.dsn is not None:
        shadow, look = shadow_witness(config), min(_LOOK_SECONDS, config.postgres.interval_seconds)
        slow.append(("postgres", look, _postgres_collector(config, config.postgres.dsn, shadow, budget)))
        if shadow is not None:
            slow.append(("shadow", look, _shadow_collector(config, shadow)))
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


class FollowLane(Lane):
    """The lane that follows the database. It exports nothing: it keeps a ledger, on time, whether anybody reads or not.

    Raises ConfigError without psycopg, which is an extra.
    """

    def __init__(self, config: Config) -> None:
        from otel_queue.database.follower import Follower

        self._look_seconds = config.follow.look_seconds
        self._follower = Follower(config)
        self._stop = threading.Event()
        super().__init__(
            "follow",
            self._turn,
            min_interval_seconds=self._look_seconds,
            max_staleness_seconds=_SLOW_LANE_INTERVALS * self._look_seconds,
        )

    def start(self) -> None:
        """Begins to follow."""
        threading.Thread(target=self._keep_time, name="otel-queue-follow-timer", daemon=True).start()

    def end(self, budget_seconds: float) -> None:
        """Ends between two slices, and lets another follower begin at once; waits for that no longer than it may."""
        self._stop.set()
        self.wait(budget_seconds)
        self._follower.close()

    def _keep_time(self) -> None:
        while not self._stop.wait(self._look_seconds):
            self.refresh(0.0)

    def _turn(self) -> Collected:
        if self._stop.is_set():
            return Collected([])  # the last push reads every lane once more
        # Slices of a sweep leave the second half of the interval to the next look.
        turn = self._follower.turn(self._stop, until=time.monotonic() + self._look_seconds / 2)
        return Collected([], turn.failures)


def _staleness(name: str, interval: float, config: Config) -> float:
    """How long a slow lane's values hold: some of its own intervals, and the time that a collection may take."""
    if name == "postgres":
        # The source itself leaves out what is older than three of its intervals.
        return max_age_seconds(config)
    return _SLOW_LANE_INTERVALS * interval + config.queue.max_staleness_seconds


def _postgres_collector(
    config: Config, dsn: Secret, shadow: Shadow | None, budget: SeriesBudget
) -> Callable[[], Collected]:
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
        lean=config.domain.labels == "lean",
        budget=budget,
        witness=shadow,
    )

    def collect() -> Collected:
        collected = source.collect()
        return replace(collected, families=[_of_shard(family, config.shard) for family in collected.families])

    return collect


def _shadow_collector(config: Config, shadow: Shadow) -> Callable[[], Collected]:
    """What has come of all comparisons, whoever made them, and what has failed in ours."""
    journal, compared, most_seconds = shadow_journal(config), tolerances(config), max_age_seconds(config)

    def collect() -> Collected:
        journaled = journal.read()
        failures = Counter(journaled.failures) + shadow.take_failures()
        return Collected(shadow_families(journaled, compared, max_age_seconds=most_seconds), failures)

    return collect


def _of_shard(family: Family, shard: Shard) -> Family:
    """With the shard's projects alone; a project is the first label of every domain metric."""
    if shard.count == 1:
        return family
    return replace(family, samples=[sample for sample in family.samples if shard.owns(sample[0][0])])


def _snapshot_collector(inspecting: Inspector, queue: QueueConfig) -> Callable[[], Collected]:
    def collect() -> Collected:
        snapshot = inspecting.snapshot()
        return Collected(snapshot_families(snapshot, convoy=queue.convoy), snapshot.failures)

    return collect


def _ledger_collector(config: Config, budget: SeriesBudget) -> Callable[[], Collected]:
    domain = config.domain
    reader, held = ledger_reader(config, shard=config.shard), HeldCounters()

    def collect() -> Collected:
        snapshot = reader.snapshot()
        exported = ledger_families(snapshot, lean=domain.labels == "lean", budget=budget, held=held)
        tallies = tally_families(snapshot, held)
        held_now = held_family(exported.held + tallies.held, snapshot.time)
        families = [*exported.families, *tallies.families, held_now]
        return Collected(families, snapshot.failures, whole=not snapshot.failures, folded=exported.folded)

    return collect


def _retention_collector(config: Config) -> Callable[[], Collected]:
    upkeep = ledger_upkeep(config)

    def collect() -> Collected:
        # By Redis's clock: a day that is taken out by mistake does not come back.
        days, projects = config.ledger.retention_days, upkeep.projects()
        through = upkeep.day_before(days) if days else None
        try:
            ended = upkeep.settle_each(projects, through)
            refused = {project: error for project, error in ended if isinstance(error, ReadError | WriteError)}
            reasons = Counter(error.reason for error in refused.values())
        except (ReadError, WriteError) as error:
            if days or error.reason != "permission":
                raise
            reasons = Counter([error.reason])
        if not days and reasons.keys() == {"permission"}:
            # An exporter may be a user that only reads; somebody else settles then.
            _log.info("ledger: days are not settled by this exporter, which may not write: see docs/security.md")
            return Collected([])
        if refused:
            of = f"{len(refused)} of {number_of(len(projects), 'project')}"
            errors = "; ".join(f"{project}: {error}" for project, error in islice(refused.items(), _REFUSED_SHOWN))
            told = f"days are not ended in {of}: {errors}"
            if len(refused) == len(projects) or not reasons.keys() <= _OF_ONE_PROJECT:
                raise WriteError(next(iter(reasons)), told)
            _log.warning("ledger: %s", told)
            return Collected([], reasons)
        return Collected([])

    return collect


def _memory_collector(inspecting: Inspector) -> Callable[[], Collected]:
    def collect() -> Collected:
        failures: Counter[str] = Counter()
        usage = inspecting.memory_usage(failures=failures)
        if failures and all(size is None for size in usage.values()):
            raise ReadError(next(iter(failures)), f"memory usage of all queues ({len(usage)}): {_words(failures)}")
        return Collected(memory_families(usage, time.time()), failures)

    return collect


def _task_type_collector(inspecting: Inspector, queue: QueueConfig) -> Callable[[], Collected]:
    def collect() -> Collected:
        failures: Counter[str] = Counter()
        types = inspecting.sample_task_types(size=queue.task_types_sample, failures=failures)
        return Collected(task_type_families(types, time.time()), failures)

    return collect


def _words(failures: Counter[str]) -> str:
    return ", ".join(f"{reason} ({count})" for reason, count in failures.items())
