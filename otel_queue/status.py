"""What the pipeline tells whoever serves it: one scrape's answer, readiness, and what a page shows.

Numbers that are not known are None, never 0. Times are in Unix seconds.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exposition:
    """One scrape's answer; `content_type` is the format that was negotiated."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether Redis could be read just now, and one line that says so or why not."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class RecentError:
    """What went wrong lately in a lane: the same reason and words once, with how often and when."""

    lane: str
    reason: str
    text: str
    first: float
    last: float
    count: int


@dataclass(frozen=True, slots=True)
class LaneState:
    """How a lane is doing. `up` is None before the first collection, `age_seconds` before the first success.

    It is `stale` when its values have become too old to be exported. `source` carries no password, and is "" for
    whoever needs none. `recent` is the newest first.
    """

    name: str
    up: bool | None
    duration_seconds: float | None
    last_success: float | None
    age_seconds: float | None
    errors: Mapping[str, int]
    last_error: str | None
    stale: bool = False
    source: str = ""
    recent: tuple[RecentError, ...] = ()


@dataclass(frozen=True, slots=True)
class Point:
    """A queue at one time; rates are those since the point before."""

    time: float
    pending: float | None
    processed_per_second: float | None
    failed_per_second: float | None


@dataclass(frozen=True, slots=True)
class QueueOverview:
    """A queue in numbers of tasks, and its last minutes, oldest point first. Rates are those of the last minute."""

    queue: str
    size: float | None = None
    pending: float | None = None
    active: float | None = None
    scheduled: float | None = None
    retry: float | None = None
    archived: float | None = None
    latency_seconds: float | None = None
    processed_per_second: float | None = None
    failed_per_second: float | None = None
    paused: bool | None = None
    servers: float | None = None
    lease_expired: float | None = None
    history: tuple[Point, ...] = ()


@dataclass(frozen=True, slots=True)
class MetricSource:
    """Where a domain metric may come from, and where it comes from now; `active` is None while it is absent."""

    metric: str
    source: str
    fallback: str | None
    active: str | None


@dataclass(frozen=True, slots=True)
class ProjectOverview:
    """A project's deliveries: all, those neither succeeded nor given up, those failed, and its oldest in processing."""

    project: str
    name: str
    deliveries: float
    unfinished: float
    failed: float
    backlog_seconds: float | None


@dataclass(frozen=True, slots=True)
class EndpointOverview:
    """An endpoint: its oldest delivery in processing, and its attempts since the ledger's birth and lately."""

    project: str
    endpoint: str
    project_name: str = ""
    backlog_seconds: float | None = None
    attempts: float | None = None
    failed: float | None = None
    failed_lately: float | None = None


@dataclass(frozen=True, slots=True)
class DomainOverview:
    """The busiest projects and the worst endpoints, worst first; the counts say how many there are in all.

    `lately_seconds` is how far back `failed_lately` looks, None when nothing older is remembered yet. A list is
    None when its metric is absent.
    """

    sources: tuple[MetricSource, ...]
    projects: tuple[ProjectOverview, ...] | None
    project_count: int
    oldest: tuple[EndpointOverview, ...] | None
    waiting_count: int
    failing: tuple[EndpointOverview, ...] | None
    failing_count: int
    lately_seconds: float | None


@dataclass(frozen=True, slots=True)
class ShadowVerdict:
    """The last comparison of a metric with its shadow; `missing` is series that only one side has, by side."""

    metric: str
    within_tolerance: bool | None
    drift: float | None
    missing: Mapping[str, float]
    comparisons: float | None


@dataclass(frozen=True, slots=True)
class Status:
    """The process as a page shows it.

    `push` says where OTLP goes, or "off". `queues` are those that need an eye most, with their history;
    `other_queues` have none; both are sorted by name, and `queue_count` is how many there are. `domain` is None
    when no domain metric is configured, `shadow` is empty when nothing is compared.
    """

    version: str
    started_at: float
    lanes: tuple[LaneState, ...]
    push: str
    queues: tuple[QueueOverview, ...] = ()
    other_queues: tuple[QueueOverview, ...] = ()
    queue_count: int = 0
    domain: DomainOverview | None = None
    shadow: tuple[ShadowVerdict, ...] = ()
    errors: tuple[RecentError, ...] = ()
