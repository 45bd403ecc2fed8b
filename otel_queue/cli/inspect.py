"""`otel-queue inspect`: what is in Redis now, once."""

import argparse
import json
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, Final

from otel_queue.cli import FINE
from otel_queue.cli.numbers import number
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.table import table

_MOST_DAYS: Final = 3650  # as the inspector's history


def add_command(commands: Any) -> None:
    """Adds `inspect`."""
    parser = commands.add_parser("inspect", help="print queues, servers or schedulers once")
    parser.add_argument("queue", nargs="*", help="only these queues")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--servers", action="store_true", help="servers and what their workers do")
    what.add_argument("--schedulers", action="store_true", help="periodic tasks")
    days = number(int, 1, _MOST_DAYS, "days")
    what.add_argument("--history", type=days, metavar="DAYS", help="processed and failed per UTC day")
    what.add_argument("--types", action="store_true", help="sampled task types")
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_settings(parser, ("redis", "queue"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from otel_queue.asynq.connect import queue_inspector

    inspector = queue_inspector(settings_of(options))
    for chosen, show in (
        (options.servers, _servers),
        (options.schedulers, _schedulers),
        (options.history is not None, _history),
        (options.types, _types),
    ):
        if chosen:
            return show(inspector, options)
    return _queues(inspector, options)


def _queues(inspector: Any, options: argparse.Namespace) -> int:
    from otel_queue.asynq.queue_info import QUEUE_INFO_FIELDS

    if options.queue:
        infos = [inspector.queue_info(name) for name in options.queue]
    else:
        snapshot = inspector.snapshot()
        memory = inspector.memory_usage([info.queue for info in snapshot.queues])
        infos = [info._replace(memory_usage=memory.get(info.queue)) for info in snapshot.queues]
    if options.json:
        _print_json({name: _plain(name, getattr(info, name)) for name in QUEUE_INFO_FIELDS} for info in infos)
        return FINE
    head = ("QUEUE", "PENDING", "ACTIVE", "SCHEDULED", "RETRY", "ARCHIVED", "COMPLETED", "AGGREGATING", "GROUPS",
            "LATENCY s", "PROCESSED", "FAILED", "MEMORY B", "PAUSED", "NO LEASE", "EXPIRED")  # fmt: skip
    rows = (
        (info.queue, info.pending, info.active, info.scheduled, info.retry, info.archived, info.completed,
         info.aggregating, info.groups, info.latency, info.processed_total, info.failed_total, info.memory_usage,
         _yes(info.paused), info.active_without_lease, info.lease_expired)
        for info in infos
    )  # fmt: skip
    print(table(head, rows))
    return FINE


def _servers(inspector: Any, options: argparse.Namespace) -> int:
    servers = inspector.servers()
    if options.json:
        _print_json(
            {
                "host": server.info.host,
                "pid": server.info.pid,
                "server_id": server.info.server_id,
                "status": server.info.status,
                "concurrency": server.info.concurrency,
                "queues": dict(server.info.queues),
                "strict_priority": server.info.strict_priority,
                "started": _time(server.info.start_time),
                "active_workers": _workers(server.active_workers),
            }
            for server in servers
        )
        return FINE
    rows = (
        (item.info.host, item.info.pid, item.info.status, item.info.concurrency, _count(item.active_workers),
         " ".join(f"{name}={priority}" for name, priority in sorted(item.info.queues.items())),
         _time(item.info.start_time))
        for item in servers
    )  # fmt: skip
    print(table(("HOST", "PID", "STATUS", "CONCURRENCY", "BUSY", "QUEUES", "STARTED"), rows))
    return FINE


def _workers(workers: tuple[Any, ...] | None) -> list[dict[str, Any]] | None:
    if workers is None:
        return None
    return [
        {
            "task_id": worker.task_id,
            "task_type": worker.task_type,
            "queue": worker.queue,
            "started": _time(worker.start_time),
            "deadline": _time(worker.deadline),
        }
        for worker in workers
    ]


def _count(workers: tuple[Any, ...] | None) -> int | None:
    return None if workers is None else len(workers)


def _schedulers(inspector: Any, options: argparse.Namespace) -> int:
    entries = inspector.scheduler_entries()
    if options.json:
        _print_json(
            {
                "id": entry.id,
                "spec": entry.spec,
                "task_type": entry.task_type,
                "options": list(entry.enqueue_options),
                "next": _time(entry.next_enqueue_time),
                "prev": _time(entry.prev_enqueue_time),
            }
            for entry in entries
        )
        return FINE
    rows = (
        (entry.spec, entry.task_type, _time(entry.next_enqueue_time), _time(entry.prev_enqueue_time),
         " ".join(entry.enqueue_options))
        for entry in entries
    )  # fmt: skip
    print(table(("SPEC", "TASK TYPE", "NEXT", "PREVIOUS", "OPTIONS"), rows))
    return FINE


def _history(inspector: Any, options: argparse.Namespace) -> int:
    names = options.queue or inspector.queues()
    days = [item for name in names for item in inspector.history(name, options.history)]
    if options.json:
        _print_json(
            {"queue": item.queue, "day": item.day, "processed": item.processed, "failed": item.failed} for item in days
        )
        return FINE
    rows = ((item.queue, item.day, item.processed, item.failed) for item in days)
    print(table(("QUEUE", "DAY", "PROCESSED", "FAILED"), rows))
    return FINE


def _types(inspector: Any, options: argparse.Namespace) -> int:
    found = inspector.sample_task_types(options.queue or None)
    rows = [
        (queue, state, task_type, count)
        for queue, by_state in sorted(found.items())
        for state, by_type in by_state.items()
        for task_type, count in sorted(by_type.items())
    ]
    if options.json:
        _print_json(dict(zip(("queue", "state", "task_type", "count"), row, strict=True)) for row in rows)
        return FINE
    print(table(("QUEUE", "STATE", "TASK TYPE", "SAMPLED"), rows))
    return FINE


def _print_json(items: Iterable[dict[str, Any]]) -> None:
    print(json.dumps(list(items), indent=2))


def _plain(name: str, value: Any) -> Any:
    return _time(value) if name == "timestamp" else value


def _yes(flag: bool | None) -> str | None:
    return None if flag is None else ("yes" if flag else "no")


def _time(seconds: float | None) -> str | None:
    """RFC 3339 in UTC."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, tz=UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
