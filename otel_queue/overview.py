"""From the families of the last collection to what a page shows: queues, projects, endpoints, verdicts."""

import heapq
import threading
import time
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from otel_queue.catalog import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, PROJECT_INFO, by_key
from otel_queue.history import Endpoint, FailureMemory, History, failures
from otel_queue.samples import Family, LabelValues
from otel_queue.selection import ACTIVE
from otel_queue.status import (
    DomainOverview,
    EndpointOverview,
    MetricSource,
    ProjectOverview,
    QueueOverview,
    ShadowVerdict,
)

CHARTED_QUEUES: Final = 30
MOST_QUEUES: Final = 200
TOP: Final = 10

_UNFINISHED: Final = ("scheduled", "processing", "retry")
_PER_QUEUE: Final[Mapping[str, str]] = {
    "size": "asynq_queue_size",
    "latency_seconds": "asynq_queue_latency_seconds",
    "paused": "asynq_queue_paused_total",
    "lease_expired": "asynq_tasks_lease_expired",
    "servers": "asynq_queue_servers",
}
_STATES: Final = ("pending", "active", "scheduled", "retry", "archived")


class Seen(NamedTuple):
    """What a page shows of the last collection."""

    queues: tuple[QueueOverview, ...]
    other_queues: tuple[QueueOverview, ...]
    queue_count: int
    domain: DomainOverview | None
    shadow: tuple[ShadowVerdict, ...]


class Overview:
    """Keeps the families of the last collection and a short history. Safe for threads.

    `note` is cheap, since a scrape waits for it; what costs a pass over all series is worked out in `seen`, once per
    collection, and only when somebody looks.
    """

    def __init__(self, *, now: Callable[[], float] = time.monotonic) -> None:
        self._lock = threading.Lock()
        self._now = now
        self._history = History()
        self._failures = FailureMemory(now=now)
        self._families: Mapping[str, Family] = {}
        self._noted: float | None = None  # by the monotonic clock
        self._seen: tuple[Mapping[str, Family], Seen] | None = None

    def note(self, families: Mapping[str, Family]) -> None:
        """Takes what one collection found."""
        with self._lock:
            self._families, self._noted = families, self._now()
            self._history.record(families)
            self._failures.record(families.get(ATTEMPTS))

    def age_seconds(self) -> float | None:
        """How long ago the last collection was; None before the first."""
        noted = self._noted
        return None if noted is None else self._now() - noted

    def seen(self) -> Seen:
        """What the last collection found. Cost: a pass over its series, the first time it is asked for."""
        with self._lock:
            families = self._families
            if self._seen is not None and self._seen[0] is families:
                return self._seen[1]
            charted, others, count = _queues(families, self._history)
            lately, increase = self._failures.lately_seconds(), self._failures.increase
        found = Seen(charted, others, count, _domain(families, lately, increase), _shadow(families))
        self._seen = families, found
        return found


def _queues(
    families: Mapping[str, Family], history: History
) -> tuple[tuple[QueueOverview, ...], tuple[QueueOverview, ...], int]:
    """Those with a chart, the others, and how many there are.

    When no queue can be read, the remembered ones stand there with nothing but their past.
    """
    found: dict[str, dict[str, float]] = {}
    if "asynq_queue_size" not in families:
        found = {queue: {} for queue in history.queues()}
    for (queue, state), value in by_key(families.get("asynq_tasks_enqueued_total"), "queue", "state"):
        if state in _STATES:
            found.setdefault(queue, {})[state] = value
    for column, name in _PER_QUEUE.items():
        for (queue,), value in by_key(families.get(name), "queue"):
            if column == "servers" and queue not in found:
                continue  # a server would serve it, but it does not exist yet
            found.setdefault(queue, {})[column] = value
    # By name, so that nothing moves on the page: the need for an eye decides only who has a chart.
    needy = set(heapq.nlargest(CHARTED_QUEUES, found, key=lambda queue: _need(found[queue])))
    rest = heapq.nlargest(MOST_QUEUES - CHARTED_QUEUES, found.keys() - needy, key=lambda queue: _need(found[queue]))
    charted, others = (
        tuple(_queue(queue, found[queue], history, with_history=queue in needy) for queue in sorted(names))
        for names in (needy, rest)
    )
    return charted, others, len(found)


def _need(values: Mapping[str, float]) -> tuple[bool, float]:
    """How much a queue needs an eye: something is wrong with it, then how much there is to do."""
    waits = values.get("pending", 0.0)
    trouble = bool(values.get("paused") or values.get("lease_expired") or (waits and values.get("servers") == 0))
    return trouble, waits + values.get("active", 0.0) + values.get("retry", 0.0)


def _queue(queue: str, values: Mapping[str, float], history: History, *, with_history: bool) -> QueueOverview:
    processed, failed = history.rates(queue) if values else (None, None)
    paused = values.get("paused")
    numbers = {name: value for name, value in values.items() if name != "paused"}
    return QueueOverview(
        queue,
        **numbers,
        processed_per_second=processed,
        failed_per_second=failed,
        paused=None if paused is None else bool(paused),
        history=history.points(queue) if with_history else (),
    )


def _domain(
    families: Mapping[str, Family],
    lately: float | None,
    increase: Callable[[Endpoint, float], float | None],
) -> DomainOverview | None:
    active = families.get(ACTIVE)
    if active is None:
        return None
    names = {project: name for (project, name), _ in by_key(families.get(PROJECT_INFO), "project", "project_name")}
    projects, project_count = _projects(families, names)
    oldest, waiting_count = _oldest(families, names)
    failing, failing_count = _failing(families, names, increase)
    return DomainOverview(
        _sources(active), projects, project_count, oldest, waiting_count, failing, failing_count, lately
    )


def _sources(active: Family) -> tuple[MetricSource, ...]:
    by_metric: dict[str, dict[str, str]] = {}
    used: dict[str, str] = {}
    for (metric, source, role), value in by_key(active, "metric", "source", "role"):
        by_metric.setdefault(metric, {})[role] = source
        if value:
            used[metric] = source
    return tuple(
        MetricSource(metric, roles["source"], roles.get("fallback"), used.get(metric))
        for metric, roles in by_metric.items()
    )


def _projects(families: Mapping[str, Family], names: dict[str, str]) -> tuple[tuple[ProjectOverview, ...] | None, int]:
    """The busiest projects, and how many there are; completes `names` on the way."""
    deliveries = families.get(DELIVERIES)
    if deliveries is None:
        return None, 0
    counts: dict[str, dict[str, float]] = {}
    for (project, name, status), value in by_key(deliveries, "project", "project_name", "status"):
        by_status = counts.get(project)
        if by_status is None:
            by_status = counts[project] = {}
            names.setdefault(project, name)
        by_status[status] = by_status.get(status, 0.0) + value
    backlog = _largest(families.get(DELIVERY_BACKLOG), "project")
    rows = [
        ProjectOverview(
            project,
            names[project],
            sum(by_status.values()),
            sum(by_status.get(status, 0.0) for status in _UNFINISHED),
            by_status.get("failure", 0.0),
            backlog.get((project,)),
        )
        for project, by_status in counts.items()
    ]
    top = heapq.nlargest(TOP, rows, key=lambda row: (row.unfinished, row.deliveries, row.project))
    return tuple(top), len(rows)


def _oldest(
    families: Mapping[str, Family], names: Mapping[str, str]
) -> tuple[tuple[EndpointOverview, ...] | None, int]:
    if DELIVERY_BACKLOG not in families:
        return None, 0
    ages = _largest(families[DELIVERY_BACKLOG], "project", "endpoint")
    waiting = [(age, endpoint) for endpoint, age in ages.items() if age > 0]
    top = heapq.nlargest(TOP, waiting)
    rows = (
        EndpointOverview(project, endpoint, names.get(project, ""), backlog_seconds=age)
        for age, (project, endpoint) in top
    )
    return tuple(rows), len(waiting)


def _failing(
    families: Mapping[str, Family],
    names: Mapping[str, str],
    increase: Callable[[Endpoint, float], float | None],
) -> tuple[tuple[EndpointOverview, ...] | None, int]:
    attempts = families.get(ATTEMPTS)
    if attempts is None:
        return None, 0
    failed = failures(attempts)
    lately = {endpoint: increase(endpoint, count) for endpoint, count in failed.items()}
    top = heapq.nlargest(TOP, failed, key=lambda endpoint: (lately[endpoint] or 0.0, failed[endpoint], endpoint))
    total = dict.fromkeys(top, 0.0)
    for endpoint, value in by_key(attempts, "project", "endpoint"):
        if endpoint in total:
            total[endpoint] += value
    rows = (
        EndpointOverview(
            *endpoint,
            names.get(endpoint[0], ""),
            attempts=total[endpoint],
            failed=failed[endpoint],
            failed_lately=lately[endpoint],
        )
        for endpoint in top
    )
    return tuple(rows), len(failed)


def _shadow(families: Mapping[str, Family]) -> tuple[ShadowVerdict, ...]:
    within, drift, comparisons = (
        {metric: value for (metric,), value in by_key(families.get(f"otel_queue_shadow_{what}"), "metric")}
        for what in ("within_tolerance", "drift", "comparisons_total")
    )
    missing: dict[str, dict[str, float]] = {}
    for (metric, side), value in by_key(families.get("otel_queue_shadow_missing_series"), "metric", "side"):
        missing.setdefault(metric, {})[side] = value
    return tuple(
        ShadowVerdict(
            metric,
            bool(within[metric]) if metric in within else None,
            drift.get(metric),
            missing.get(metric, {}),
            comparisons.get(metric),
        )
        for metric in dict.fromkeys((*within, *drift, *comparisons))
    )


def _largest(family: Family | None, *keys: str) -> dict[LabelValues, float]:
    found: dict[LabelValues, float] = {}
    for group, value in by_key(family, *keys):
        if value > found.get(group, -1.0):
            found[group] = value
    return found
