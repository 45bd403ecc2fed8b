"""Every metric, one row each: the only place where a metric is defined.

Instruments, Views (the allow lists of attribute keys), docs/metrics.md and the contract test derive from it.
Units are "" or "{...}" except where the name ends in `_seconds`: any other unit would change the name on its way
through a Prometheus reader or a Collector.
"""

import operator
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Final, Literal

from otel_queue.samples import Family, LabelValues

Kind = Literal["gauge", "counter", "histogram", "updowncounter"]
Owner = Literal["inspector", "ledger", "worker", "derived", "self"]
Stability = Literal["stable", "development", "compatibility"]


@dataclass(frozen=True, slots=True)
class Row:
    """One metric. `since` is the version that first exports it, `removed_in` the one that no longer does.

    `keys` are all attribute keys it may carry, in the order of the label values of its families. `stable` names
    exist outside this project too and do not change; `opt_in` ones are absent until they are configured.
    `boundaries` are a histogram's upper bucket limits.
    """

    name: str
    kind: Kind
    unit: str
    keys: tuple[str, ...]
    owner: Owner
    description: str
    stability: Stability = "development"
    since: str = "0.1"
    removed_in: str = ""
    opt_in: bool = False
    boundaries: tuple[float, ...] = ()

    @property
    def combine(self) -> Callable[[float, float], float]:
        """How series that lose a key become one: counts and bytes are summed, ages and flags take the largest."""
        return operator.add if self.unit not in ("", "s") or self.name.endswith("_bytes") else max


_TASK, _SECONDS = "{task}", "s"

# Prometheus's usual limits in seconds, and further: handlers wait for endpoints, and events for retries.
_HANDLING: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
_WAITING: Final = (*_HANDLING, 120.0, 300.0, 600.0, 1800.0, 3600.0)

# Asynq's own exporter has these seven; names, types and labels are kept, so dashboards go on working.
_ASYNQ: Final = (
    Row("asynq_tasks_enqueued_total", "gauge", _TASK, ("queue", "state"), "inspector",
        "Tasks in a queue by state; all seven states, aggregating included", "stable"),
    Row("asynq_queue_size", "gauge", _TASK, ("queue",), "inspector",
        "Tasks in a queue over all seven states; retained completed tasks count", "stable"),
    Row("asynq_queue_latency_seconds", "gauge", _SECONDS, ("queue",), "inspector",
        "Seconds that the next pending task with a known time has been pending; 0 when none is pending",
        "stable"),
    Row("asynq_queue_memory_usage_approx_bytes", "gauge", "", ("queue",), "inspector",
        "Bytes of Redis memory used by a queue, estimated by sampling on a slow cadence", "stable"),
    Row("asynq_tasks_processed_total", "counter", _TASK, ("queue",), "inspector",
        "Attempts finished, succeeded and failed, since the queue's counter began", "stable"),
    Row("asynq_tasks_failed_total", "counter", _TASK, ("queue",), "inspector",
        "Attempts failed since the queue's counter began", "stable"),
    Row("asynq_queue_paused_total", "gauge", "", ("queue",), "inspector",
        "1 if the queue is paused, else 0", "stable"),
)  # fmt: skip

_ASYNQ_MORE: Final = (
    Row("asynq_queue_groups", "gauge", "{group}", ("queue",), "inspector",
        "Groups whose tasks wait to be aggregated"),
    Row("asynq_tasks_active_without_lease", "gauge", _TASK, ("queue",), "inspector",
        "Active tasks beyond the number of leases: no server will recover them"),
    Row("asynq_tasks_lease_expired", "gauge", _TASK, ("queue",), "inspector",
        "Active tasks whose lease has run out: their server is gone or stuck"),
    Row("asynq_queue_overdue_seconds", "gauge", _SECONDS, ("queue", "state"), "inspector",
        "Seconds by which the most overdue scheduled or retry task is late; 0 when none is due"),
    Row("asynq_servers", "gauge", "{server}", ("status",), "inspector",
        "Live servers by the status of their heartbeat"),
    Row("asynq_server_concurrency", "gauge", "{worker}", (), "inspector",
        "Workers that all live servers may run at once"),
    Row("asynq_queue_servers", "gauge", "{server}", ("queue",), "inspector",
        "Live servers that serve the queue"),
    Row("asynq_queue_concurrency", "gauge", "{worker}", ("queue",), "inspector",
        "Workers of the live servers that serve the queue; shared with their other queues"),
    Row("asynq_queue_busy_workers", "gauge", "{worker}", ("queue",), "inspector",
        "Workers busy with a task of the queue, as of the last heartbeats"),
    Row("asynq_scheduler_entries", "gauge", "{entry}", (), "inspector",
        "Periodic tasks registered with live schedulers"),
    Row("asynq_scheduler_lateness_seconds", "gauge", _SECONDS, (), "inspector",
        "Seconds by which the latest periodic task is past its next run; 0 when all are on time"),
    Row("asynq_task_types_sampled", "gauge", _TASK, ("queue", "state", "task_type"), "inspector",
        "Tasks of a type among the first tasks of a state; a sample, not a total", opt_in=True),
)  # fmt: skip

_CONVOY_QUEUES: Final = (
    Row("convoy_event_queue_scheduled_total", "gauge", _TASK, ("status",), "inspector",
        "Tasks in CreateEventQueue that are not completed or archived", "stable"),
    Row("convoy_event_workflow_queue_match_subscriptions_total", "gauge", _TASK, ("status",), "inspector",
        "Tasks in EventWorkflowQueue that are not completed or archived", "stable"),
)  # fmt: skip

# Where the code means one of these, it says so by these names.
EVENTS: Final = "convoy_event_queue_total"
EVENT_BACKLOG: Final = "convoy_event_queue_backlog_seconds"
DELIVERIES: Final = "convoy_event_delivery_queue_total"
DELIVERY_BACKLOG: Final = "convoy_event_delivery_queue_backlog_seconds"
ATTEMPTS: Final = "convoy_event_delivery_attempts_total"
PROJECT_INFO: Final = "convoy_project_info"

_CONVOY_DOMAIN: Final = (
    Row(EVENTS, "gauge", "{event}", ("project", "source", "status"), "ledger",
        "Events recorded, by project and source", "stable", since="0.2"),
    Row(EVENT_BACKLOG, "gauge", _SECONDS, ("project", "source"), "ledger",
        "Age of the oldest delivery in processing, by project and source", "stable", since="0.2"),
    Row(DELIVERIES, "gauge", "{delivery}",
        ("project", "project_name", "endpoint", "status", "event_type", "source", "organisation_id",
         "organisation_name"), "ledger",
        "Deliveries by status, endpoint, event type and source", "stable", since="0.2"),
    Row(DELIVERY_BACKLOG, "gauge", _SECONDS, ("project", "endpoint", "source"),
        "ledger", "Age of the oldest delivery in processing, by project, endpoint and source", "stable",
        since="0.2"),
    Row(ATTEMPTS, "counter", "{attempt}",
        ("project", "endpoint", "status", "http_status_code"), "ledger",
        "Delivery attempts, each counted once", "stable", since="0.2"),
    Row(PROJECT_INFO, "gauge", "", ("project", "project_name", "organisation_id", "organisation_name"),
        "ledger", "1 for every project, with its names", since="0.2", opt_in=True),
)  # fmt: skip

_WORKER: Final = (
    Row("convoy_end_to_end_latency", "histogram", "", ("project", "endpoint"), "worker",
        "Seconds that an event spends from acceptance to its first successful delivery", "stable", since="0.2",
        boundaries=_WAITING),
    Row("convoy_event_delivery_attempt_duration_seconds", "histogram", _SECONDS,
        ("project", "endpoint", "status"), "worker", "Duration of one delivery attempt", since="0.2",
        boundaries=_HANDLING),
    Row("asynq_task_process_duration_seconds", "histogram", _SECONDS, ("queue", "task_type", "outcome"),
        "worker", "Time that a handler takes", since="0.2",
        boundaries=_HANDLING),
    Row("asynq_task_wait_seconds", "histogram", _SECONDS, ("queue", "task_type"), "worker",
        "Time from enqueueing to the first start of the handler", since="0.2",
        boundaries=_WAITING),
    Row("asynq_tasks_sent_total", "counter", _TASK, ("queue", "task_type"), "worker",
        "Tasks that this process enqueued", since="0.2"),
    Row("asynq_task_outcomes_total", "counter", _TASK, ("queue", "task_type", "outcome"), "worker",
        "Handler runs by outcome", since="0.2"),
    Row("asynq_tasks_in_progress", "updowncounter", _TASK, ("queue", "task_type"), "worker",
        "Handlers running in this process", since="0.2"),
    Row("convoy_ingest_total", "counter", "{event}", ("project", "source"), "worker",
        "Events offered to ingestion", "stable", since="0.2"),
    Row("convoy_ingest_success", "counter", "{event}", ("project", "source"), "worker",
        "Events ingested and consumed", "stable", since="0.2"),
    Row("convoy_ingest_error", "counter", "{event}", ("project", "source"), "worker",
        "Errors during event ingestion", "stable", since="0.2"),
    Row("convoy_rate_limit_total", "counter", "{request}", ("bucket", "outcome"), "worker",
        "Rate limiter outcomes other than allow", "stable", since="0.2"),
)  # fmt: skip

_COMPATIBILITY: Final = (
    Row("convoy_event_delivery_attempts_legacy", "gauge", "{attempt}",
        ("project", "endpoint", "status", "http_status_code"), "derived",
        "The attempts counter under its former type, gauge", "compatibility", since="0.3", removed_in="1.0",
        opt_in=True),
    Row("convoy_event_queue_scheduled_legacy", "gauge", _TASK, ("status",), "derived",
        "convoy_event_queue_scheduled_total with its former 0 in place of an unknown", "compatibility",
        since="0.3", removed_in="1.0", opt_in=True),
    Row("convoy_event_workflow_queue_match_subscriptions_legacy", "gauge", _TASK, ("status",), "derived",
        "convoy_event_workflow_queue_match_subscriptions_total with its former 0 in place of an unknown",
        "compatibility", since="0.3", removed_in="1.0", opt_in=True),
)  # fmt: skip

_SELF: Final = (
    Row("otel_queue_build_info", "gauge", "", ("version", "python_version"), "self",
        "1, with the version that runs"),
    Row("otel_queue_up", "gauge", "", ("lane",), "self",
        "1 if the lane's last collection or push succeeded, else 0"),
    Row("otel_queue_collect_duration_seconds", "gauge", _SECONDS, ("lane",), "self",
        "Duration of the lane's last collection or push"),
    Row("otel_queue_errors_total", "counter", "{error}", ("lane", "reason"), "self",
        "What could not be read or pushed, by reason"),
    Row("otel_queue_snapshot_age_seconds", "gauge", _SECONDS, ("lane",), "self",
        "Age of the snapshot that the lane's series come from"),
    Row("otel_queue_last_success_timestamp_seconds", "gauge", _SECONDS, ("lane",), "self",
        "Unix time of the lane's last successful collection or push"),
    Row("otel_queue_source_active", "gauge", "", ("metric", "source", "role"), "self",
        "1 for where a domain metric comes from: its source, or its fallback (role)", since="0.3"),
    Row("otel_queue_duplicates_suppressed_total", "counter", "{record}", ("record",), "self",
        "Lifecycle records that changed nothing", since="0.2"),
    Row("otel_queue_late_records_total", "counter", "{record}", ("record",), "self",
        "Lifecycle records that came after their day or window had expired", since="0.2"),
    Row("otel_queue_clamped_records_total", "counter", "{record}", ("record",), "self",
        "Lifecycle records whose time was further ahead of Redis than allowed", since="0.2"),
    Row("otel_queue_dropped_labels_total", "counter", "{label}", ("metric", "reason"), "self",
        "Label values that a worker dropped or shortened", since="0.2"),
    Row("otel_queue_folded_series", "gauge", "{series}", ("metric",), "self",
        "Series beyond the budget, which add up under `other`", since="0.2"),
    Row("otel_queue_held_series", "gauge", "{series}", ("metric",), "self",
        "Series of a counter that are held at the highest value shown, since the ledger lost what they had counted",
        since="0.3"),
    Row("otel_queue_series", "gauge", "{series}", ("metric",), "self",
        "Series exported per domain metric", since="0.2"),
    Row("otel_queue_shards", "gauge", "{shard}", (), "self",
        "Shards that the projects are divided among, as this exporter was told", since="0.3"),
    Row("otel_queue_shard_projects", "gauge", "{project}", ("shard",), "self",
        "Projects with an event in this exporter's shard", since="0.3"),
    Row("otel_queue_shadow_drift", "gauge", "", ("metric",), "self",
        "Largest difference of a series between ledger and database in the last comparison, in the metric's unit",
        since="0.3"),
    Row("otel_queue_shadow_missing_series", "gauge", "{series}", ("metric", "side"), "self",
        "Series that `side` lacks and the other has, beyond tolerance", since="0.3"),
    Row("otel_queue_shadow_within_tolerance", "gauge", "", ("metric",), "self",
        "1 if no difference stands as of the last comparison, else 0", since="0.3"),
    Row("otel_queue_shadow_known_differences", "gauge", "{series}", ("metric", "side", "difference"), "self",
        "Series that differ from the corrected ones by a known rule: on the `ledger` side, or in the `legacy` numbers",
        since="0.3"),
    Row("otel_queue_shadow_comparisons_total", "counter", "{comparison}", ("metric",), "self",
        "Comparisons made", since="0.3"),
    Row("otel_queue_shadow_skipped_total", "counter", "{comparison}", ("metric", "reason"), "self",
        "Comparisons that could not be made, by reason", since="0.3"),
)  # fmt: skip

CATALOG: Final[Mapping[str, Row]] = MappingProxyType(
    {
        row.name: row
        for rows in (
            _ASYNQ, _ASYNQ_MORE, _CONVOY_QUEUES, _CONVOY_DOMAIN, _WORKER, _COMPATIBILITY, _SELF,
        )
        for row in rows
    }
)  # fmt: skip


def exported_by(owner: Owner, version: str) -> tuple[Row, ...]:
    """The rows of an owner that `version` (major.minor.patch) exports, in catalog order."""
    now = _release(version)
    return tuple(
        row
        for row in CATALOG.values()
        if row.owner == owner and _release(row.since) <= now and (not row.removed_in or now < _release(row.removed_in))
    )


def by_key(family: Family | None, *keys: str) -> Iterator[tuple[LabelValues, float]]:
    """The samples with the label values of these keys alone, in this order; none of no family."""
    if family is None:
        return iter(())
    places = [CATALOG[family.name].keys.index(key) for key in keys]
    # Of a single place itemgetter would give the text itself, not a tuple of it.
    chosen = operator.itemgetter(*places) if len(places) > 1 else operator.itemgetter(slice(places[0], places[0] + 1))
    return ((chosen(values), value) for values, value in family.samples)


def _release(version: str) -> tuple[int, int]:
    major, minor, *_ = version.split(".")
    return int(major), int(minor)
