"""The exporter about itself: how its lanes are doing, and what it is."""

import platform
import time
from collections.abc import Iterable, Mapping
from typing import Final

from otel_queue.catalog import EVENTS
from otel_queue.samples import Family
from otel_queue.shard import Shard
from otel_queue.status import LaneState
from otel_queue.version import __version__

SOURCE: Final = "self"
SERIES: Final = "otel_queue_series"
FOLDED: Final = "otel_queue_folded_series"
SHARDS: Final = "otel_queue_shards"
SHARD_PROJECTS: Final = "otel_queue_shard_projects"


def self_families(states: Iterable[LaneState]) -> dict[str, Family]:
    """The otel_queue_* families by name. What a lane does not know yet has no sample."""
    states = list(states)
    per_lane: dict[str, list[tuple[str, float | None]]] = {
        "otel_queue_up": [(state.name, state.up) for state in states],
        "otel_queue_collect_duration_seconds": [(state.name, state.duration_seconds) for state in states],
        "otel_queue_snapshot_age_seconds": [(state.name, state.age_seconds) for state in states],
        "otel_queue_last_success_timestamp_seconds": [(state.name, state.last_success) for state in states],
    }
    samples = {
        name: [((lane,), float(value)) for lane, value in values if value is not None]
        for name, values in per_lane.items()
    }
    errors = [((state.name, reason), float(count)) for state in states for reason, count in state.errors.items()]
    build = [((__version__, platform.python_version()), 1.0)]
    now = time.time()
    return {
        **{name: Family(name, found, now, SOURCE) for name, found in samples.items()},
        "otel_queue_errors_total": Family("otel_queue_errors_total", errors, now, SOURCE),
        "otel_queue_build_info": Family("otel_queue_build_info", build, now, SOURCE),
    }


def series_families(
    families: Mapping[str, Family], sources: Mapping[str, str], folded: Mapping[str, Mapping[str, int]]
) -> dict[str, Family]:
    """How many series each domain metric has, and how many its source folded (source -> metric -> count)."""
    now = time.time()
    series = [((name,), float(len(family.samples))) for name, family in families.items()]
    into_other = [((name,), float(folded.get(sources[name], {}).get(name, 0))) for name in families]
    return {SERIES: Family(SERIES, series, now, SOURCE), FOLDED: Family(FOLDED, into_other, now, SOURCE)}


def shard_families(families: Mapping[str, Family], shard: Shard) -> dict[str, Family]:
    """Of how many shards this is which, and the number of its projects that have an event."""
    now = time.time()
    found = {SHARDS: Family(SHARDS, [((), float(shard.count))], now, SOURCE)}
    if (events := families.get(EVENTS)) is not None:
        projects = {values[0] for values, _ in events.samples}
        found[SHARD_PROJECTS] = Family(SHARD_PROJECTS, [((str(shard.index),), float(len(projects)))], now, SOURCE)
    return found
