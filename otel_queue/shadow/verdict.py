"""Whether a metric is ready to change its source, and if not, why."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

from otel_queue.config import Config
from otel_queue.shadow.comparison import SIDES
from otel_queue.shadow.entry import Entry
from otel_queue.shadow.families import is_fresh
from otel_queue.shadow.tolerance import Tolerance

# A comparison may be late by some intervals of the database's readings, and by what a reading takes.
_LATE_INTERVALS: Final = 3
_STATEMENTS: Final = 5


@dataclass(frozen=True, slots=True)
class Gate:
    """How long and how often a metric has to be within tolerance, and how old its last comparison may be."""

    seconds: float
    comparisons: int
    max_age_seconds: float


def gate_of(config: Config) -> Gate:
    """The gate as configured."""
    return Gate(config.domain.gate_seconds, config.domain.gate_comparisons, max_age_seconds(config))


def max_age_seconds(config: Config) -> float:
    """How old the last comparison may be, and the reading that it was made of, and still say something of now."""
    postgres = config.postgres
    return _LATE_INTERVALS * postgres.interval_seconds + _STATEMENTS * postgres.statement_timeout_seconds


def reasons_not_ready(entry: Entry | None, tolerance: Tolerance, gate: Gate, now: float) -> list[str]:
    """Why a metric is not ready, each as a short clause; nothing if it is. `now` is by the journal's clock."""
    if entry is None or entry.last is None:
        skipped = "" if entry is None else ", ".join(f"{reason} {count}" for reason, count in entry.skipped.items())
        return ["never compared" + (f" (skipped: {skipped})" if skipped else "")]
    found: list[str] = []
    if not is_fresh(entry, now, gate.max_age_seconds):
        found.append(f"last comparison {duration(now - entry.last)} ago")
    if entry.rule != tolerance.digest:
        return [*found, "not compared since its tolerance was changed"]
    if entry.standing:
        return found + _standing(entry)
    held = entry.last - (entry.last if entry.within_since is None else entry.within_since)
    if held < gate.seconds:
        found.append(f"within tolerance only for {duration(held)} of {duration(gate.seconds)}")
    if entry.within < gate.comparisons:
        found.append(f"within tolerance in only {entry.within} of {gate.comparisons} comparisons")
    return found


def _standing(entry: Entry) -> list[str]:
    standing = [item for item in entry.worst if item.stands]
    since = min((item.since for item in standing), default=entry.last or 0.0)
    found = [f"standing difference of {entry.standing} series since {moment(since)}"]
    lacking = [side for side in SIDES if any(item.missing == side for item in standing)]
    return found + [f"{entry.missing.get(side, 0)} series missing in {side}" for side in lacking]


def duration(seconds: float) -> str:
    """In the largest unit of which there are two at least, cut off: 24 h, 119 min."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(int(seconds), 0)} s"


def moment(seconds: float) -> str:
    """RFC 3339 in UTC."""
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
