"""What the numbers must be: by Asynq's own inspector, by Convoy's rows, and by Convoy's own snapshot tables.

The statements are the tests' own: nothing here is read through what is measured.
"""

import time
from collections import defaultdict
from dataclasses import dataclass
from typing import Any, Final

from tests.asynq_peer import AsynqPeer
from tests.servers.postgres import PostgresServer

EVENTS: Final = "convoy_event_queue_total"
EVENT_BACKLOG: Final = "convoy_event_queue_backlog_seconds"
DELIVERIES: Final = "convoy_event_delivery_queue_total"
DELIVERY_BACKLOG: Final = "convoy_event_delivery_queue_backlog_seconds"
ATTEMPTS: Final = "convoy_event_delivery_attempts_total"
DOMAIN: Final = (EVENTS, EVENT_BACKLOG, DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS)
STATES: Final = ("pending", "active", "scheduled", "retry", "archived", "completed", "aggregating")

Labels = frozenset[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Age:
    """A number of seconds that grows: known by its limits."""

    low: float
    high: float


Values = dict[Labels, "float | Age"]
Numbers = dict[str, Values]
"""By metric and labels."""


def labelled(**labels: str) -> Labels:
    return frozenset(labels.items())


def asynq_numbers(asynq: AsynqPeer) -> Numbers:
    """By Asynq's own inspector."""
    numbers: dict[str, Values] = defaultdict(dict)
    for queue in asynq.call("queues"):
        info = asynq.call("queue_info", queue=queue)
        of_queue = labelled(queue=queue)
        for state in STATES:
            numbers["asynq_tasks_enqueued_total"][labelled(queue=queue, state=state)] = float(info[state])
        numbers["asynq_queue_size"][of_queue] = float(info["size"])
        numbers["asynq_queue_memory_usage_approx_bytes"][of_queue] = float(info["memory_usage"])
        numbers["asynq_tasks_processed_total"][of_queue] = float(info["processed_total"])
        numbers["asynq_tasks_failed_total"][of_queue] = float(info["failed_total"])
        numbers["asynq_queue_paused_total"][of_queue] = float(info["paused"])
        numbers["asynq_queue_groups"][of_queue] = float(info["groups"])
        latency = info["latency_ns"] / 1e9
        numbers["asynq_queue_latency_seconds"][of_queue] = Age(latency, latency) if latency else 0.0
        open_tasks = float(info["size"] - info["completed"] - info["archived"])
        if queue == "CreateEventQueue":
            numbers["convoy_event_queue_scheduled_total"][labelled(status="scheduled")] = open_tasks
        if queue == "EventWorkflowQueue":
            numbers["convoy_event_workflow_queue_match_subscriptions_total"][labelled(status="scheduled")] = open_tasks
    servers = asynq.call("servers") or ()
    numbers["asynq_server_concurrency"][labelled()] = float(sum(each["concurrency"] for each in servers))
    return dict(numbers)


def row_numbers(postgres: PostgresServer, slack: float) -> Numbers:
    """By the rows; ages may be `slack` seconds off."""
    with postgres.connect() as connection:
        cursor = connection.cursor()

        def rows(statement: str) -> list[Any]:
            return cursor.execute(statement.encode()).fetchall()

        with connection.transaction():
            cursor.execute(b"SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            organisations = dict(rows("SELECT id, name FROM convoy.organisations"))
            projects = {
                id: (name, org) for id, name, org in rows("SELECT id, name, organisation_id FROM convoy.projects")
            }
            events = rows("SELECT project_id, id, source_id FROM convoy.events")
            deliveries = rows(
                "SELECT project_id, event_id, endpoint_id, status, event_type, extract(epoch FROM created_at)::float8"
                " FROM convoy.event_deliveries WHERE deleted_at IS NULL"
            )
            attempts = rows("SELECT project_id, endpoint_id, status, http_status FROM convoy.delivery_attempts")
    now = time.time()
    numbers: dict[str, Values] = {metric: defaultdict(float) for metric in DOMAIN}
    sources = {(project, id): source or "http" for project, id, source in events}
    for (project, _), source in sources.items():
        numbers[EVENTS][labelled(project=project, source=source, status="success")] += 1.0  # type: ignore[operator]
    born: dict[tuple[str, Labels], float | None] = {}
    for project, event, endpoint, status, event_type, created in deliveries:
        source = sources.get((project, event), "unknown")
        name, organisation = projects.get(project, ("", ""))
        labels = labelled(
            project=project, project_name=name, endpoint=endpoint or "", status=status.lower(),
            event_type=event_type or "", source=source, organisation_id=organisation,
            organisation_name=organisations.get(organisation, ""),
        )  # fmt: skip
        numbers[DELIVERIES][labels] += 1.0  # type: ignore[operator]
        for group in (
            (EVENT_BACKLOG, labelled(project=project, source=source)),
            (DELIVERY_BACKLOG, labelled(project=project, endpoint=endpoint or "", source=source)),
        ):
            held = born.setdefault(group, None)
            if status == "Processing":
                born[group] = created if held is None else min(held, created)
    for (metric, labels), since in born.items():
        numbers[metric][labels] = 0.0 if since is None else Age(now - since - slack, now - since + slack)
    for project, endpoint, succeeded, http_status in attempts:
        code = http_status[:3] if http_status else "none"
        outcome = "success" if succeeded else "failure"
        labels = labelled(project=project, endpoint=endpoint or "", status=outcome, http_status_code=code)
        numbers[ATTEMPTS][labels] += 1.0  # type: ignore[operator]
    return {metric: dict(values) for metric, values in numbers.items()}


_SNAPSHOTS: Final = {
    EVENTS: ("event_queue", "metrics_event_queue", "project_id AS project, source_id AS source, 'success' AS status"),
    EVENT_BACKLOG: ("event_queue_backlog", "metrics_event_queue_backlog", "project_id AS project, source_id AS source"),
    DELIVERIES: (
        "event_delivery_queue",
        "metrics_event_delivery_queue",
        "project_id AS project, project_name, endpoint_id AS endpoint, lower(status) AS status, event_type,"
        " source_id AS source, organisation_id, organisation_name",
    ),
    DELIVERY_BACKLOG: (
        "event_endpoint_backlog",
        "metrics_event_endpoint_backlog",
        "project_id AS project, endpoint_id AS endpoint, source_id AS source",
    ),
}


def snapshot_time(postgres: PostgresServer) -> float:
    """When Convoy made the oldest of its snapshots: 0 while one is missing."""
    names = ", ".join(f"'{name}'" for name, _, _ in _SNAPSHOTS.values())
    (made,) = postgres.execute(
        "SELECT coalesce(extract(epoch FROM min(coalesce(refreshed_at, 'epoch'))), 0)::float8"
        f" FROM convoy.metrics_snapshot_meta WHERE name IN ({names})"
    )
    return float(made[0])


def snapshot_numbers(postgres: PostgresServer) -> Numbers:
    """By Convoy's own snapshot tables: what its /metrics shows where it has a licence."""
    numbers: Numbers = {}
    for metric, (name, table, columns) in _SNAPSHOTS.items():
        value = "age_seconds" if metric.endswith("_seconds") else "total"
        with postgres.connect() as connection:
            cursor = connection.execute(
                f"SELECT {columns}, {value}::float8 AS value FROM convoy.{table}"
                f" JOIN convoy.metrics_snapshot_meta m USING (generation) WHERE m.name = '{name}'".encode()
            )
            keys = [column.name for column in cursor.description or ()][:-1]
            numbers[metric] = {
                frozenset(zip(keys, map(str, labels), strict=True)): number for *labels, number in cursor.fetchall()
            }
    return numbers
