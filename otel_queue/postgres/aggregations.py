"""From rows to families: what each statement's rows mean, under each parity."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from otel_queue import labels
from otel_queue.catalog import ATTEMPTS, CATALOG, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS
from otel_queue.errors import ReadError
from otel_queue.postgres.database import Reading, Row
from otel_queue.samples import Family, LabelValues

SOURCE: Final = "postgres"

# legacy: the numbers of the gateway's own exporter, flaws included. corrected: what they were meant to be.
# snapshot: legacy numbers out of the tables in which the gateway keeps them, at no cost.
Reckoning = Literal["legacy", "corrected", "snapshot"]

_Samples = dict[LabelValues, float]
_Parse = Callable[[Sequence[Row], Counter[str]], Mapping[str, _Samples]]


class Found(NamedTuple):
    """The families that could be read, and why others could not (reason -> count)."""

    families: list[Family]
    failures: Counter[str]


def read_families(reading: Reading, reckoning: Reckoning, now: float, before_each: Callable[[], None]) -> Found:
    """All families of one transaction, which began at `now` (Unix seconds, by the clock they are aged by).

    On a replica their time is that of its state. The gateway's snapshots have their own, which comes with them.
    A statement that fails costs its own families. Raises ReadError when none of them can be read, and what
    `before_each`, called before every statement, raises.
    """
    failures: Counter[str] = Counter()
    families: list[Family] = []
    times = _snapshot_times(reading, now) if reckoning == "snapshot" else {}
    failed: ReadError | None = None
    for name, parse in _STATEMENTS[reckoning].items():
        before_each()
        try:
            time = now - reading.lag_seconds if reckoning != "snapshot" else _refreshed(times, name)
            found = parse(reading.rows(f"{reckoning}/{name}"), failures)
        except ReadError as error:
            failed = error
            failures[error.reason] += 1
            if not reading.is_alive:
                raise
            continue
        families += [Family(metric, list(samples.items()), time, SOURCE) for metric, samples in found.items()]
    if failed is not None and not families:
        raise failed
    return Found(families, failures)


def statements(reckoning: Reckoning) -> tuple[str, ...]:
    """The names of the statements of which a reading consists."""
    names = tuple(f"{reckoning}/{name}" for name in _STATEMENTS[reckoning])
    return ("snapshot/meta", *names) if reckoning == "snapshot" else names


# The gateway's names for what it keeps, where they are not the statement's.
_SNAPSHOT_NAMES: Final = {"event_delivery_queue_backlog": "event_endpoint_backlog"}


def _snapshot_times(reading: Reading, now: float) -> Mapping[str, float]:
    return {
        name: now - age for name, generation, age in reading.rows("snapshot/meta") if generation > 0 and age is not None
    }


def _refreshed(times: Mapping[str, float], statement: str) -> float:
    name = _SNAPSHOT_NAMES.get(statement, statement)
    if name not in times:
        raise ReadError("not_refreshed", f"the gateway has not refreshed its snapshot {name} yet; are its metrics on?")
    return times[name]


def _legacy(metric: str) -> _Parse:
    """The first of several rows with the same labels wins; labels are as they are but for a delivery's status."""

    def parse(rows: Sequence[Row], failures: Counter[str]) -> Mapping[str, _Samples]:
        found: _Samples = {}
        for values, value in _known(_labelled(metric, rows), failures):
            found.setdefault(values, value)
        return {metric: found}

    return parse


def _labelled(metric: str, rows: Iterable[Row]) -> Iterator[tuple[LabelValues, float | None]]:
    if metric == EVENTS:
        return (((project, source, "success"), total) for project, source, total in rows)
    if metric == DELIVERIES:
        return (((*row[:3], row[3].lower(), *row[4:8]), row[8]) for row in rows)
    return ((tuple(values), age) for *values, age in rows)


def _known(
    found: Iterable[tuple[LabelValues, float | None]], failures: Counter[str]
) -> Iterator[tuple[LabelValues, float]]:
    """An age that nobody knows, for want of a created_at, has no sample."""
    for values, value in found:
        if value is None:
            failures["unknown_age"] += 1
        else:
            yield values, float(value)


def _events(rows: Sequence[Row], failures: Counter[str]) -> Mapping[str, _Samples]:
    del failures
    return {EVENTS: _combined(EVENTS, (((*map(labels.clean, (project, source)), "success"), float(total))
                                       for project, source, total in rows))}  # fmt: skip


def _deliveries(rows: Sequence[Row], failures: Counter[str]) -> Mapping[str, _Samples]:
    """Counts, and both backlogs: every group is a known one, and nothing in processing is a true 0."""
    counts: list[tuple[LabelValues, float]] = []
    by_source: list[tuple[LabelValues, float | None]] = []
    by_endpoint: list[tuple[LabelValues, float | None]] = []
    for *texts, total, age in rows:
        project, project_name, endpoint, status, event_type, source, organisation, organisation_name = map(
            labels.clean, texts
        )
        status = status.lower()
        if total:
            counts.append(((project, project_name, endpoint, status, event_type, source, organisation,
                            organisation_name), float(total)))  # fmt: skip
        oldest = age if status == "processing" else 0.0
        by_source.append(((project, source), oldest))
        by_endpoint.append(((project, endpoint, source), oldest))
    return {
        DELIVERIES: _combined(DELIVERIES, counts),
        EVENT_BACKLOG: _oldest(by_source, failures),
        DELIVERY_BACKLOG: _oldest(by_endpoint, failures),
    }


def _oldest(ages: Iterable[tuple[LabelValues, float | None]], failures: Counter[str]) -> _Samples:
    """The largest age of each group; a group whose only deliveries in processing have no age is left out."""
    found: _Samples = {}
    unknown: set[LabelValues] = set()
    for values, age in ages:
        if age is None:
            unknown.add(values)
        found[values] = max(found.get(values, 0.0), age or 0.0)
    for values in unknown:
        if found[values] == 0.0:
            del found[values]
            failures["unknown_age"] += 1
    return found


def _attempts(rows: Sequence[Row], failures: Counter[str]) -> Mapping[str, _Samples]:
    del failures
    return {
        ATTEMPTS: _combined(
            ATTEMPTS,
            (
                ((labels.clean(project), labels.clean(endpoint), labels.outcome(succeeded),
                  labels.http_status_code(http_status)), float(total))
                for project, endpoint, succeeded, http_status, total in rows
            ),
        )
    }  # fmt: skip


def _combined(metric: str, samples: Iterable[tuple[LabelValues, float]]) -> _Samples:
    """Series that became the same by cleaning are one."""
    combine = CATALOG[metric].combine
    found: _Samples = {}
    for values, value in samples:
        found[values] = combine(found[values], value) if values in found else value
    return found


_LEGACY: Final[Mapping[str, _Parse]] = {
    "event_queue": _legacy(EVENTS),
    "event_queue_backlog": _legacy(EVENT_BACKLOG),
    "event_delivery_queue": _legacy(DELIVERIES),
    "event_delivery_queue_backlog": _legacy(DELIVERY_BACKLOG),
}
_STATEMENTS: Final[Mapping[Reckoning, Mapping[str, _Parse]]] = {
    "legacy": _LEGACY,
    "snapshot": _LEGACY,
    "corrected": {"event_queue": _events, "event_delivery_queue": _deliveries, "attempts": _attempts},
}
