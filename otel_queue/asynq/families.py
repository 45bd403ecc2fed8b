"""From the inspector's findings to families of the catalog. An unknown field has no sample."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from otel_queue.asynq.queue_info import STATES, QueueInfo, Snapshot
from otel_queue.samples import Family, LabelValues

SOURCE: Final = "redis"

# The metrics that are one number of a queue.
_PER_QUEUE: Final[Mapping[str, Callable[[QueueInfo], float | None]]] = {
    "asynq_queue_size": lambda info: info.size,
    "asynq_queue_latency_seconds": lambda info: info.latency,
    "asynq_tasks_processed_total": lambda info: info.processed_total,
    "asynq_tasks_failed_total": lambda info: info.failed_total,
    "asynq_queue_paused_total": lambda info: info.paused,
    "asynq_queue_groups": lambda info: info.groups,
    "asynq_tasks_active_without_lease": lambda info: info.active_without_lease,
    "asynq_tasks_lease_expired": lambda info: info.lease_expired,
}

# Convoy's two queue gauges and the queues they look at.
CONVOY_QUEUES: Final[Mapping[str, str]] = {
    "convoy_event_queue_scheduled_total": "CreateEventQueue",
    "convoy_event_workflow_queue_match_subscriptions_total": "EventWorkflowQueue",
}

_Samples = list[tuple[LabelValues, float]]


def snapshot_families(snapshot: Snapshot, *, convoy: bool) -> list[Family]:
    """The queue lane's families of one snapshot; with `convoy`, the two convoy_ gauges too."""
    samples: dict[str, _Samples] = {name: list(_known(snapshot.queues, value)) for name, value in _PER_QUEUE.items()}
    samples["asynq_tasks_enqueued_total"] = [
        ((info.queue, state), float(count))
        for info in snapshot.queues
        for state in STATES
        if (count := info.in_state(state)) is not None
    ]
    samples["asynq_queue_overdue_seconds"] = [
        ((info.queue, state), seconds)
        for info in snapshot.queues
        for state, seconds in (("scheduled", info.overdue_scheduled), ("retry", info.overdue_retry))
        if seconds is not None
    ]
    samples |= _server_samples(snapshot) | _scheduler_samples(snapshot)
    if convoy:
        samples |= _convoy_samples(snapshot)
    return [Family(name, found, snapshot.time, SOURCE) for name, found in samples.items()]


def memory_families(usage: Mapping[str, int | None], time: float) -> list[Family]:
    """Memory usage per queue; queues without a figure are left out."""
    samples = [((queue,), float(size)) for queue, size in usage.items() if size is not None]
    return [Family("asynq_queue_memory_usage_approx_bytes", samples, time, SOURCE)]


def task_type_families(types: Mapping[str, Mapping[str, Mapping[str, int]]], time: float) -> list[Family]:
    """Sampled task types per queue and state."""
    samples = [
        ((queue, state, task_type), float(count))
        for queue, by_state in types.items()
        for state, by_type in by_state.items()
        for task_type, count in by_type.items()
    ]
    return [Family("asynq_task_types_sampled", samples, time, SOURCE)]


def _known(
    queues: Iterable[QueueInfo], value: Callable[[QueueInfo], float | None]
) -> Iterator[tuple[LabelValues, float]]:
    for info in queues:
        found = value(info)
        if found is not None:
            yield (info.queue,), float(found)


def _server_samples(snapshot: Snapshot) -> dict[str, _Samples]:
    if snapshot.servers is None:
        return {}
    serving: Counter[str] = Counter()
    concurrency: Counter[str] = Counter()
    busy: Counter[str] = Counter()
    for server in snapshot.servers:
        for queue in server.info.queues:
            serving[queue] += 1
            concurrency[queue] += server.info.concurrency
        busy.update(worker.queue for worker in server.active_workers or ())
    # Every queue has a figure: nobody serving it is a 0 that an alert needs.
    names = sorted({info.queue for info in snapshot.queues} | set(serving) | set(busy))
    statuses = Counter(server.info.status for server in snapshot.servers)
    known_workers = all(server.active_workers is not None for server in snapshot.servers)
    return {
        "asynq_servers": [((status,), float(count)) for status, count in {"active": 0, **statuses}.items()],
        "asynq_server_concurrency": [((), float(sum(item.info.concurrency for item in snapshot.servers)))],
        "asynq_queue_servers": [((name,), float(serving[name])) for name in names],
        "asynq_queue_concurrency": [((name,), float(concurrency[name])) for name in names],
        "asynq_queue_busy_workers": [((name,), float(busy[name])) for name in names if known_workers],
    }


def _scheduler_samples(snapshot: Snapshot) -> dict[str, _Samples]:
    if snapshot.scheduler_entries is None:
        return {}
    due = [entry.next_enqueue_time for entry in snapshot.scheduler_entries]
    lateness = [max(snapshot.time - time, 0.0) for time in due if time is not None]
    return {
        "asynq_scheduler_entries": [((), float(len(due)))],
        "asynq_scheduler_lateness_seconds": [((), max(lateness, default=0.0))],
    }


def _convoy_samples(snapshot: Snapshot) -> dict[str, _Samples]:
    by_name = {info.queue: info for info in snapshot.queues}
    samples: dict[str, _Samples] = {}
    for metric, queue in CONVOY_QUEUES.items():
        info = by_name.get(queue)
        value = 0 if info is None else _waiting(info)  # a queue that does not exist yet holds no task
        samples[metric] = [] if value is None else [(("scheduled",), float(value))]
    return samples


def _waiting(info: QueueInfo) -> int | None:
    """Size without completed and archived tasks, as Convoy counts."""
    if info.size is None or info.completed is None or info.archived is None:
        return None
    return info.size - info.completed - info.archived
