"""From the ledger to families of the catalog: names joined, unknown labels shown, too many series folded."""

from collections import Counter
from collections.abc import Mapping
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
from otel_queue.ledger.held import Attempts, HeldCounters
from otel_queue.ledger.project import TALLIED, Labels, Project
from otel_queue.ledger.reader import LedgerSnapshot
from otel_queue.lifecycle import STATUSES
from otel_queue.samples import Family, LabelValues
from otel_queue.series_budget import Exported, Samples, SeriesBudget

SOURCE: Final = "ledger"
# A group beyond the ledger's hard cap, whose labels were not kept.
_OVERFLOW: Final = Labels(labels.OTHER, labels.OTHER, labels.OTHER)


def ledger_families(
    snapshot: LedgerSnapshot,
    *,
    lean: bool = False,
    budget: SeriesBudget | None = None,
    held: HeldCounters | None = None,
) -> Exported:
    """The domain lane's families of one snapshot.

    `lean` leaves names, organisation and event type empty and offers convoy_project_info instead. Without a `budget`
    nothing is folded, and without `held` a counter is what the ledger tells, also when it has lost something.
    """
    birth = snapshot.birth_us / 1e6
    if budget is not None:
        budget.begin(SOURCE, birth)
    if held is not None:
        held.begin(snapshot.birth_us)
    samples: dict[str, Samples] = {
        EVENTS: {},
        EVENT_BACKLOG: {},
        DELIVERIES: {},
        DELIVERY_BACKLOG: {},
        ATTEMPTS: {},
    }
    if lean:
        samples[PROJECT_INFO] = {}
    exported = Exported([])
    for project in snapshot.projects:
        attempts = project.attempts
        if held is not None:
            attempts = held.attempts(project)
            exported.held[ATTEMPTS] += held.held_attempts(project.project)
        for name, found in _project_samples(project, attempts, snapshot.time, lean).items():
            if budget is not None:
                found = budget.fold(SOURCE, name, project.project, found, exported)
            samples[name].update(found)
    exported.families.extend(
        Family(name, list(found.items()), snapshot.time, SOURCE, birth if CATALOG[name].kind == "counter" else None)
        for name, found in samples.items()
    )
    return exported


def _project_samples(project: Project, attempts: Attempts, now: float, lean: bool) -> dict[str, Samples]:
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
        ATTEMPTS: {(project.project, *field): float(count) for field, count in attempts.items()},
    }
    if lean:
        found[PROJECT_INFO] = {(project.project, *project.names): 1.0}
    return found


def _shown(told: str | None) -> str:
    return labels.UNKNOWN if told is None else told


def tally_families(snapshot: LedgerSnapshot, held: HeldCounters) -> Exported:
    """What the ledger says of itself: records that changed nothing, came late or were ahead of its clock.

    Nothing while a project cannot be read, or was not yet: a total without it would be too small.
    """
    exported = Exported([])
    if snapshot.failures:
        return exported
    held.begin(snapshot.birth_us)
    told: Counter[str] = Counter()
    for project in snapshot.projects:
        told.update(project.tallies)
    for what, name in _TALLIED.items():
        totals = {kind: held.total(what, kind, told[f"{what}:{kind}"]) for kind in TALLIED[what]}
        exported.held[name] = sum(total > told[f"{what}:{kind}"] for kind, total in totals.items())
        samples = [((kind,), float(total)) for kind, total in totals.items()]
        exported.families.append(Family(name, samples, snapshot.time, SOURCE, snapshot.birth_us / 1e6))
    return exported


def held_family(held: Mapping[str, int], time: float) -> Family:
    """How many series of each counter are held."""
    return Family(_HELD, [((name,), float(held.get(name, 0))) for name in (ATTEMPTS, *_TALLIED.values())], time, SOURCE)


_HELD: Final = "otel_queue_held_series"
_TALLIED: Final = {
    "duplicate": "otel_queue_duplicates_suppressed_total",
    "late": "otel_queue_late_records_total",
    "clamped": "otel_queue_clamped_records_total",
}
TALLIES: Final = frozenset(_TALLIED.values())
