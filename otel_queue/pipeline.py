"""The composition root: configuration in, lanes and readers out."""

import threading
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from otel_queue.asynq.connect import queue_inspector
from otel_queue.catalog import DELIVERIES, PROJECT_INFO, exported_by
from otel_queue.config import (
    DOMAIN_METRICS,
    SOURCES,
    Config,
    parse_listen,
)
from otel_queue.configured_lanes import FollowLane, quick_lanes, selection, slow_lanes
from otel_queue.errors import ReadError
from otel_queue.export.compatibility import compatibility_families
from otel_queue.export.instruments import meter_provider
from otel_queue.export.otlp import OtlpPush, otlp_push
from otel_queue.export.points import SeriesPoints
from otel_queue.export.resource import build_resource
from otel_queue.export.self_metrics import self_families, series_families, shard_families
from otel_queue.export.text import TextExposition
from otel_queue.lane import Lane
from otel_queue.ledger.families import TALLIES
from otel_queue.overview import Overview
from otel_queue.samples import Family
from otel_queue.selection import ACTIVE
from otel_queue.series_budget import SeriesBudget
from otel_queue.status import Exposition, LaneState, Readiness, Status
from otel_queue.version import __version__

_SERVICE_NAME: Final = "otel-queue"
# A page that is looked at reads no more often than this, however many look; scrapes and pushes count too.
_PAGE_SECONDS: Final = 10.0
_PAGE_ERRORS: Final = 20
# Scrapes share a text for no longer than this, however long the lanes share what they read: it tells their ages.
_SHARE_SECONDS: Final = 1.0
# Aggregated when they are read, or with a start of their own: they go to the readers beside the SDK's instruments.
_AGGREGATED: Final = (
    *exported_by("ledger", __version__),
    *exported_by("derived", __version__),
    *(row for row in exported_by("self", __version__) if row.name in TALLIES),
)


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
        self._sources = {"ledger": ledger, "retention": ledger, "shadow": ledger}
        self._sources |= {"postgres": "PostgreSQL", "follow": "PostgreSQL"}
        budget = SeriesBudget(config.domain.most_series)
        self._lanes, self._slow_lanes = quick_lanes(config, budget), slow_lanes(config, budget)
        self._follow_lane = FollowLane(config) if config.follow.enabled else None
        if self._follow_lane is not None:
            self._slow_lanes.append(self._follow_lane)
        self._selection = selection(config)
        self._probe = queue_inspector(config)
        self._collected = threading.local()
        self._overview = Overview()
        self._text = TextExposition(
            share_seconds=min(config.queue.min_interval_seconds, _SHARE_SECONDS),
            aggregated=self._aggregated,
            attributes=config.attributes,
        )
        self._push = self._build_push() if config.pushes else None
        readers = [self._text.reader] + ([self._push.reader] if self._push else [])
        resource = build_resource(config.opentelemetry, _SERVICE_NAME, parse_listen(config.server.listen)[1])
        own = [*exported_by("inspector", __version__), *exported_by("self", __version__)]
        rows = [row for row in own if row.name not in TALLIES]
        self._provider = meter_provider(rows, self._family, readers, resource, config.attributes)

    def start(self) -> None:
        """Begins to push, if OTLP is wanted, and to read, so that the first scrape finds the slow lanes filled."""
        self._refresh(0.0)
        if self._push:
            self._push.start()
        if self._follow_lane is not None:
            self._follow_lane.start()

    def scrape(self, accept: str, budget_seconds: float | None) -> Exposition:
        """The samples of now in the best format for the Accept header, within the budget whatever Redis does.

        When Redis does not answer in time, the page says what is known: lanes that are down, and no series older
        than their limit.
        """
        with self._collection(self._budget(budget_seconds)):
            content_type, body = self._text.render(accept)
        return Exposition(content_type, body)

    def ready(self) -> Readiness:
        """Whether Redis can be read, found out by reading it."""
        try:
            self._probe.ping()
        except ReadError as error:
            return Readiness(False, str(error))
        return Readiness(True, f"{self._redis} can be read")

    def freshen(self, budget_seconds: float) -> None:
        """Reads what nobody has read for ten seconds, waiting at most `budget_seconds`: for a page that somebody opens.

        Nothing is read for a page that nobody looks at, and no more for many viewers than for one.
        """
        age = self._overview.age_seconds()
        if age is None or age >= _PAGE_SECONDS:
            with self._collection(budget_seconds):
                pass

    def status(self) -> Status:
        """The lanes as they are, and what the last collection found, from memory alone."""
        lanes = self._lane_states()
        errors = sorted((error for lane in lanes for error in lane.recent), key=lambda error: -error.last)
        return Status(
            __version__,
            self._started_at,
            tuple(lanes),
            self._push.target if self._push else "off",
            *self._overview.seen(),
            errors=tuple(errors[:_PAGE_ERRORS]),
        )

    def _lane_states(self) -> list[LaneState]:
        lanes = self._in_use((*self._lanes, *self._slow_lanes))
        states = [replace(lane.state(), source=self._sources.get(lane.name, self._redis)) for lane in lanes]
        return [*states, self._push.state()] if self._push else states

    def shutdown(self) -> bool:
        """Pushes a last time and stops, within `otlp.shutdown_timeout_seconds`; False if that push failed."""
        if self._follow_lane is not None:
            self._follow_lane.end(self._config.otlp.shutdown_timeout_seconds)
        return self._push.shutdown(self._config.otlp.shutdown_timeout_seconds) if self._push else True

    def _build_push(self) -> OtlpPush:
        points = SeriesPoints(self._config.attributes)
        return otlp_push(
            # What Redis and the ledger count are totals: a delta of them would be their lifetime at every start.
            replace(self._config.opentelemetry, temporality="cumulative"),
            collection=lambda budget: self._collection(self._budget(budget)),
            complete=lambda data: points.beside(data, self._aggregated()),
        )

    def _budget(self, seconds: float | None) -> float:
        """How long a collection may wait, of what its reader allows."""
        limit = self._config.server.scrape_budget_seconds
        return limit if seconds is None else max(0.0, min(seconds, limit))

    @contextmanager
    def _collection(self, budget_seconds: float) -> Iterator[None]:
        """Makes the lanes fresh and holds on to what they have, so that one collection sees one snapshot."""
        self._refresh(budget_seconds)
        self._collected.families = self._families()
        self._overview.note(self._collected.families)
        try:
            yield
        finally:
            self._collected.families = {}

    def _refresh(self, budget_seconds: float) -> None:
        for lane in self._in_use(self._slow_lanes):
            lane.refresh(0.0)  # in the background: nobody waits for a sample of memory
        deadline = time.monotonic() + budget_seconds
        waited_for = self._in_use(self._lanes)
        for lane in waited_for:
            lane.refresh(0.0)  # side by side
        for lane in waited_for:
            lane.wait(deadline - time.monotonic())

    def _in_use(self, lanes: Iterable[Lane]) -> list[Lane]:
        """Without the sources that no domain metric needs now: a fallback costs nothing until it is needed."""
        wanted = self._selection.wanted()
        return [lane for lane in lanes if lane.name not in SOURCES or lane.name in wanted]

    def _families(self) -> dict[str, Family]:
        lanes = self._in_use((*self._lanes, *self._slow_lanes))
        found: dict[str, Family] = {}
        for lane in lanes:
            if lane.name not in SOURCES:
                found |= lane.families()
        found |= self._domain_families(lanes)
        if self._config.domain.compatibility:
            found |= compatibility_families(found, convoy=self._config.queue.convoy)
        states = [lane.state() for lane in lanes]
        return found | self_families([*states, self._push.state()] if self._push else states)

    def _domain_families(self, lanes: Iterable[Lane]) -> Mapping[str, Family]:
        """The domain metrics from the source that each has now, and what those sources say of themselves."""
        supplies = {lane.name: lane.supply() for lane in lanes if lane.name in SOURCES}
        if not supplies:
            return {}
        chosen = self._selection.choose(supplies)
        found = {
            name: family
            for source, supply in supplies.items()
            for name, family in supply.families.items()
            # The projects' names go with the metric that has them otherwise.
            if name not in DOMAIN_METRICS and (name != PROJECT_INFO or chosen.sources.get(DELIVERIES) == source)
        }
        found |= chosen.families
        folded = {name: supply.folded for name, supply in supplies.items()}
        found |= series_families(chosen.families, chosen.sources, folded)
        found |= shard_families(chosen.families, self._config.shard)
        found[ACTIVE] = self._selection.active(chosen)
        return found

    def _family(self, name: str) -> Family | None:
        """The family for the collection that runs in this thread; the SDK's callbacks ask for it."""
        families: dict[str, Family] = getattr(self._collected, "families", {})
        return families.get(name)

    def _aggregated(self) -> list[Family]:
        """The families of this collection that do not come through instruments."""
        families: dict[str, Family] = getattr(self._collected, "families", {})
        return [families[row.name] for row in _AGGREGATED if row.name in families]
