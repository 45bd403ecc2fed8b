"""From the ledger to families of the catalog: names joined, unknown labels shown, too many series folded."""

from collections import Counter
from typing import Final

from otel_queue import labels
from otel_queue.catalog import (
    ATTEMPTS,
    CATALOG,
    DELIVERIES,
    DELIVERY_BACKLOG,
    EVENT_BACKLOG,
    EVENTS,
    PROJECT_INFO,
)
from otel_queue.ledger.reader import TALLIED, Labels, LedgerSnapshot, Project
from otel_queue.lifecycle import STATUSES
from otel_queue.samples import Family, LabelValues
from otel_queue.series_budget import Exported, Samples, fold_endpoints

SOURCE: Final = "ledger"
# A group beyond the ledger's hard cap, whose labels were not kept.
_OVERFLOW: Final = Labels(labels.OTHER, labels.OTHER, labels.OTHER)


def ledger_families(snapshot: LedgerSnapshot, *, lean: bool = False, most_series: int = 20_000) -> Exported:
    """The domain lane's families of one snapshot.

    `lean` leaves names, organisation and event type empty and offers convoy_project_info instead. A project with more
    than `most_series` series in a metric keeps the endpoints that sort first; the others' series add up under
    endpoint `other`, whatever the order in which they came.
    """
    samples: dict[str, Samples] = {
        EVENTS: {},
        EVENT_BACKLOG: {},
        DELIVERIES: {},
        DELIVERY_BACKLOG: {},
        ATTEMPTS: {},
    }
    if lean:
        samples[PROJECT_INFO] = {}
    folded: Counter[str] = Counter()
    for project in snapshot.projects:
        for name, found in _project_samples(project, snapshot.time, lean).items():
            samples[name].update(fold_endpoints(name, found, most_series, folded))
    birth = snapshot.birth_us / 1e6
    families = [
        Family(name, list(found.items()), snapshot.time, SOURCE, birth if CATALOG[name].kind == "counter" else None)
        for name, found in samples.items()
    ]
    return Exported(families, folded)


def _project_samples(project: Project, now: float, lean: bool) -> dict[str, Samples]:
    name, organisation_id, organisation_name = ("", "", "") if lean else project.names
    oldest = project.oldest_us()
    deliveries: Counter[LabelValues] = Counter()
    by_endpoint: Samples = {}
    by_source: Samples = {}
    for (group, status), count in project.deliveries.items():
        told = project.groups[group] if group else _OVERFLOW
        endpoint, source = _shown(told.endpoint), _shown(told.source)
        event_type = "" if lean else _shown(told.event_type)
        deliveries[
            project.project, name, endpoint, STATUSES[status - 1], event_type, source, organisation_id,
            organisation_name,
        ] += count  # fmt: skip
        # A group with any delivery is known: nothing in processing is a true 0.
        created = oldest.get(group)
        age = 0.0 if created is None else max(now - created / 1e6, 0.0)
        for ages, key in (
            (by_endpoint, (project.project, endpoint, source)),
            (by_source, (project.project, source)),
        ):
            ages[key] = max(age, ages.get(key, 0.0))
    events: Counter[LabelValues] = Counter()
    for group, count in project.events.items():
        source = _shown(project.sources[group]) if group else labels.OTHER
        events[project.project, source, "success"] += count
    found: dict[str, Samples] = {
        EVENTS: dict(events),
        EVENT_BACKLOG: by_source,
        DELIVERIES: dict(deliveries),
        DELIVERY_BACKLOG: by_endpoint,
        ATTEMPTS: {(project.project, *field): float(count) for field, count in project.attempts.items()},
    }
    if lean:
        found[PROJECT_INFO] = {(project.project, *project.names): 1.0}
    return found


def _shown(told: str | None) -> str:
    return labels.UNKNOWN if told is None else told


def tally_families(snapshot: LedgerSnapshot) -> list[Family]:
    """What the ledger says of itself: records that changed nothing, came late or were ahead of its clock.

    Nothing while a project cannot be read: a total without it would fall, as a counter that has begun anew does.
    """
    if snapshot.failures:
        return []
    tallies: Counter[str] = Counter()
    for project in snapshot.projects:
        tallies.update(project.tallies)
    return [
        Family(
            name,
            [((kind,), float(tallies[f"{what}:{kind}"])) for kind in TALLIED[what]],
            snapshot.time,
            SOURCE,
            snapshot.birth_us / 1e6,
        )
        for what, name in _TALLIED.items()
    ]


_TALLIED: Final = {
    "duplicate": "otel_queue_duplicates_suppressed_total",
    "late": "otel_queue_late_records_total",
    "clamped": "otel_queue_clamped_records_total",
}
TALLIES: Final = frozenset(_TALLIED.values())
