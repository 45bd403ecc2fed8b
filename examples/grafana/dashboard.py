"""The dashboard otel-queue.json. `python examples/grafana/dashboard.py` writes it anew; change this file, not that one.

Numbers that all replicas export alike are the largest over replicas. What is recorded (names with colons) needs
examples/prometheus/recording.rules.yaml; those panels follow $queue and $project, but not $job, which rules fold.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

OUTPUT: Final = Path(__file__).with_name("otel-queue.json")

_UID: Final = "otel-queue"
_SCHEMA: Final = 39  # Grafana 10.4 and later
_DATASOURCE: Final = {"type": "prometheus", "uid": "${datasource}"}
_COLUMNS: Final = 24

# Matchers: J for any series, Q and P for those of queues and projects.
J: Final = 'job=~"$job"'
Q: Final = f'{J}, queue=~"$queue"'
P: Final = f'{J}, project=~"$project"'


@dataclass(frozen=True, slots=True)
class Panel:
    """One panel: `queries` are pairs of PromQL and legend."""

    title: str
    unit: str
    queries: tuple[tuple[str, str], ...]
    kind: str = "timeseries"
    width: int = 8
    height: int = 8
    description: str = ""
    stacked: bool = False
    values: dict[int, str] = field(default_factory=dict)


def shared(selector: str) -> str:
    """What all replicas export alike, once."""
    return f"max without (instance, pod, job) ({selector})"


def p95(histogram: str, by: str, matchers: str) -> str:
    """The 95th percentile of a histogram of worker processes, which add up."""
    return f"histogram_quantile(0.95, sum by ({by}, le) (rate({histogram}_bucket{{{matchers}}}[$__rate_interval])))"


def panel(title: str, unit: str, *queries: tuple[str, str], **more: Any) -> Panel:
    """A graph of some queries."""
    return Panel(title, unit, queries, **more)


def number(title: str, unit: str, expression: str, **more: Any) -> Panel:
    """One number, at the head of a row."""
    return Panel(title, unit, ((expression, title),), kind="stat", width=4, height=4, **more)


def tasks(state: str) -> str:
    """Tasks in a state, by queue."""
    return shared(f'asynq_tasks_enqueued_total{{{Q}, state=~"{state}"}}')


ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Queues": (
        number("Pending", "short", f"sum({tasks('pending')})"),
        number("Active", "short", f"sum({tasks('active')})"),
        number("Longest pending", "s", f"max(asynq_queue_latency_seconds{{{Q}}})"),
        number("Queues paused", "short", f"sum({shared(f'asynq_queue_paused_total{{{Q}}}')})"),
        number("Lease expired", "short", f"sum({shared(f'asynq_tasks_lease_expired{{{Q}}}')})",
               description="Active tasks whose server is gone or stuck."),
        number("Live servers", "short", f"sum({shared(f'asynq_servers{{{J}}}')})"),
        panel("Tasks by state", "short", (f"sum by (state) ({tasks('.+')})", "{{state}}"), stacked=True),
        panel("Backlog", "short", (f"sum without (state) ({tasks('pending|active')})", "{{queue}}"),
              description="Pending and active tasks."),
        panel("Size", "short", (shared(f"asynq_queue_size{{{Q}}}"), "{{queue}}"),
              description="Tasks in all seven states; completed ones count while they are retained."),
        panel("Time pending", "s", (shared(f"asynq_queue_latency_seconds{{{Q}}}"), "{{queue}}"),
              description="How long the next task has been waiting."),
        panel("Time to drain", "s", ('queue:asynq_tasks_backlog:drain_seconds{queue=~"$queue"}', "{{queue}}"),
              description="The backlog at the present rate; infinite where nothing is processed."),
        panel("Attempts", "ops", (shared(f"rate(asynq_tasks_processed_total{{{Q}}}[$__rate_interval])"), "{{queue}}")),
        panel("Attempts that fail", "ops",
              (shared(f"rate(asynq_tasks_failed_total{{{Q}}}[$__rate_interval])"), "{{queue}}")),
        panel("Share that fails", "percentunit",
              ('queue:asynq_tasks_failed:ratio_rate5m{queue=~"$queue"}', "{{queue}}")),
        panel("Retry and archived", "short", (tasks("retry|archived"), "{{queue}} {{state}}")),
        panel("Workers busy", "percentunit",
              ('queue:asynq_queue_busy_workers:ratio{queue=~"$queue"}', "{{queue}}"),
              ("deployment:asynq_queue_busy_workers:ratio", "all queues"),
              description="Share of a queue's workers that are busy with it. They may serve other queues too: only the "
              "ratio over all queues tells whether workers are short."),
        panel("Workers needed", "short",
              ('queue:asynq_workers_needed:drain1m{queue=~"$queue"}', "{{queue}}"),
              (f"max(asynq_server_concurrency{{{J}}})", "there are"),
              description="Those that are busy, and those that would empty the pending list within a minute."),
        panel("Workers by queue", "short",
              (shared(f"asynq_queue_busy_workers{{{Q}}}"), "{{queue}} busy"),
              (shared(f"asynq_queue_concurrency{{{Q}}}"), "{{queue}} may be")),
        panel("Servers by queue", "short", (shared(f"asynq_queue_servers{{{Q}}}"), "{{queue}}")),
        panel("Overdue", "s", (shared(f"asynq_queue_overdue_seconds{{{Q}}}"), "{{queue}} {{state}}"),
              description="How late the most overdue scheduled or retry task is."),
        panel("Tasks that hang", "short",
              (shared(f"asynq_tasks_lease_expired{{{Q}}}"), "{{queue}} lease expired"),
              (shared(f"asynq_tasks_active_without_lease{{{Q}}}"), "{{queue}} without a lease")),
        panel("Scheduler lateness", "s", (f"max(asynq_scheduler_lateness_seconds{{{J}}})", "latest periodic task")),
        panel("Periodic tasks", "short", (f"max(asynq_scheduler_entries{{{J}}})", "registered")),
        panel("Groups", "short", (shared(f"asynq_queue_groups{{{Q}}}"), "{{queue}}"),
              description="Groups whose tasks wait to be aggregated."),
        panel("Memory in Redis", "bytes", (shared(f"asynq_queue_memory_usage_approx_bytes{{{Q}}}"), "{{queue}}"),
              description="Estimated by sampling."),
        panel("Convoy's two queues", "short",
              (f"max(convoy_event_queue_scheduled_total{{{J}}})", "CreateEventQueue"),
              (f"max(convoy_event_workflow_queue_match_subscriptions_total{{{J}}})", "EventWorkflowQueue")),
        panel("Task types", "short",
              (f"topk(20, {shared(f'asynq_task_types_sampled{{{Q}}}')})", "{{queue}} {{state}} {{task_type}}"),
              description="A sample of each state's first tasks. Opt-in: queue.task_types_interval_seconds."),
    ),
    "Domain": (
        panel("Events", "short",
              (f"sum by (project) ({shared(f'convoy_event_queue_total{{{P}}}')})", "{{project}}")),
        panel("Deliveries by status", "short",
              (f"sum by (status) ({shared(f'convoy_event_delivery_queue_total{{{P}}}')})", "{{status}}"), stacked=True),
        panel("Oldest delivery in processing", "s",
              (f"max by (project) (convoy_event_queue_backlog_seconds{{{P}}})", "{{project}}")),
        panel("Oldest delivery in processing, worst endpoints", "s",
              (f"topk(10, max by (project, endpoint) (convoy_event_delivery_queue_backlog_seconds{{{P}}}))",
               "{{project}} {{endpoint}}")),
        panel("Attempts by outcome", "ops",
              (f"sum by (status) ({shared(f'rate(convoy_event_delivery_attempts_total{{{P}}}[$__rate_interval])')})",
               "{{status}}"), stacked=True),
        panel("Attempts by HTTP status", "ops",
              ("sum by (http_status_code) "
               f"({shared(f'rate(convoy_event_delivery_attempts_total{{{P}}}[$__rate_interval])')})",
               "{{http_status_code}}"), stacked=True, description="none: no response."),
        panel("Attempts that succeed", "percentunit",
              ('project:convoy_event_delivery_attempts:success_ratio_rate5m{project=~"$project"}', "{{project}}")),
        panel("Attempts that succeed, worst endpoints", "percentunit",
              ('bottomk(10, project_endpoint:convoy_event_delivery_attempts:success_ratio_rate5m{project=~"$project"})',
               "{{project}} {{endpoint}}")),
        panel("Failures against the budget", "percentunit",
              ('project:convoy_event_delivery_attempts:failure_ratio_rate1h{project=~"$project"}', "{{project}} 1 h"),
              ('project:convoy_event_delivery_attempts:failure_ratio_rate6h{project=~"$project"}', "{{project}} 6 h"),
              description="The alerts' budget is 5 % of attempts in the long run."),
    ),
    "Workers, as they report themselves": (
        panel("Attempt duration, 95th percentile", "s",
              (p95("convoy_event_delivery_attempt_duration_seconds", "project, status", P), "{{project}} {{status}}")),
        panel("From acceptance to delivery, 95th percentile", "s",
              (p95("convoy_end_to_end_latency", "project", P), "{{project}}")),
        panel("Handler duration, 95th percentile", "s",
              (p95("asynq_task_process_duration_seconds", "task_type, outcome", Q), "{{task_type}} {{outcome}}")),
        panel("Wait before the first start, 95th percentile", "s",
              (p95("asynq_task_wait_seconds", "queue", Q), "{{queue}}")),
        panel("Handlers by outcome", "ops",
              (f"sum by (queue, outcome) (rate(asynq_task_outcomes_total{{{Q}}}[$__rate_interval]))",
               "{{queue}} {{outcome}}")),
        panel("Handlers running", "short",
              (f"sum by (queue, task_type) (asynq_tasks_in_progress{{{Q}}})", "{{queue}} {{task_type}}")),
        panel("Tasks sent", "ops",
              (f"sum by (queue, task_type) (rate(asynq_tasks_sent_total{{{Q}}}[$__rate_interval]))",
               "{{queue}} {{task_type}}")),
        panel("Ingestion", "ops",
              (f"sum by (source) (rate(convoy_ingest_total{{{P}}}[$__rate_interval]))", "{{source}} offered"),
              (f"sum by (source) (rate(convoy_ingest_success{{{P}}}[$__rate_interval]))", "{{source}} ingested"),
              (f"sum by (source) (rate(convoy_ingest_error{{{P}}}[$__rate_interval]))", "{{source}} errors")),
        panel("Rate limiter", "ops",
              (f"sum by (bucket, outcome) (rate(convoy_rate_limit_total{{{J}}}[$__rate_interval]))",
               "{{bucket}} {{outcome}}")),
        panel("Labels dropped", "ops",
              (f"sum by (metric, reason) (rate(otel_queue_dropped_labels_total{{{J}}}[$__rate_interval]))",
               "{{metric}} {{reason}}")),
    ),
    "Pipeline": (
        panel("Lanes", "short", (f"otel_queue_up{{{J}}}", "{{lane}} {{instance}}"), kind="stat",
              values={0: "down", 1: "up"}),
        panel("Snapshot age", "s", (f"otel_queue_snapshot_age_seconds{{{J}}}", "{{lane}} {{instance}}")),
        panel("Since the last success", "s",
              (f"time() - otel_queue_last_success_timestamp_seconds{{{J}}}", "{{lane}} {{instance}}")),
        panel("Collection or push takes", "s",
              (f"otel_queue_collect_duration_seconds{{{J}}}", "{{lane}} {{instance}}")),
        panel("Errors", "ops",
              (f"sum by (lane, reason) (rate(otel_queue_errors_total{{{J}}}[$__rate_interval]))",
               "{{lane}} {{reason}}")),
        panel("Versions", "short",
              (f"count by (version, python_version) (otel_queue_build_info{{{J}}})",
               "{{version}}, Python {{python_version}}"), kind="stat", description="Processes of each version."),
        panel("Shards", "short",
              (f"max by (shard) (otel_queue_shard_projects{{{J}}})", "projects of shard {{shard}}"),
              (f"max(otel_queue_shards{{{J}}})", "shards"),
              description="Exporters that share the projects export one shard each, and say how many there should be."),
        panel("Series", "short", (f"sum by (instance) (otel_queue_series{{{J}}})", "{{instance}}"),
              description="Of the domain metrics, by exporter: shards add up, replicas do not."),
        panel("Series by metric", "short", (shared(f"otel_queue_series{{{J}}}"), "{{metric}}"),
              description="Of the exporter with most."),
        panel("Series folded into other", "short", (shared(f"otel_queue_folded_series{{{J}}}"), "{{metric}}")),
        panel("Records not taken as they came", "ops",
              (shared(f"rate(otel_queue_duplicates_suppressed_total{{{J}}}[$__rate_interval])"), "{{record}} again"),
              (shared(f"rate(otel_queue_late_records_total{{{J}}}[$__rate_interval])"), "{{record}} late"),
              (shared(f"rate(otel_queue_clamped_records_total{{{J}}}[$__rate_interval])"), "{{record}} ahead of Redis"),
              description="Duplicates are normal: that is how a retry counts once. Late ones are not counted at all; "
              "those ahead of Redis are, at its time."),
        panel("Counters held", "short", (shared(f"otel_queue_held_series{{{J}}}"), "{{metric}}"),
              description="Series that stay at the highest value shown, since the ledger lost what they had counted."),
    ),
    "Migration": (
        panel("Source of each metric", "short",
              (f"{shared(f'otel_queue_source_active{{{J}}}')} == 1", "{{metric}} from {{source}}"), kind="stat",
              values={1: "in use"}, width=12,
              description="Two for one metric: replicas differ. None: it is absent."),
        panel("Within tolerance", "short", (shared(f"otel_queue_shadow_within_tolerance{{{J}}}"), "{{metric}}"),
              kind="stat", values={0: "no", 1: "yes"}, width=12),
        panel("Drift", "short", (shared(f"otel_queue_shadow_drift{{{J}}}"), "{{metric}}"),
              description="The largest difference of a series in the last comparison, in the metric's own unit."),
        panel("Series on one side only", "short",
              (shared(f"otel_queue_shadow_missing_series{{{J}}}"), "{{metric}} not in {{side}}")),
        panel("Known differences", "short",
              (shared(f"otel_queue_shadow_known_differences{{{J}}}"), "{{metric}} {{side}} {{difference}}"),
              description="Series that differ by a rule with a name: what a cutover changes."),
        panel("Comparisons", "ops",
              (shared(f"rate(otel_queue_shadow_comparisons_total{{{J}}}[$__rate_interval])"), "{{metric}}")),
        panel("Comparisons skipped", "ops",
              (shared(f"rate(otel_queue_shadow_skipped_total{{{J}}}[$__rate_interval])"), "{{metric}} {{reason}}")),
    ),
}  # fmt: skip


def dashboard() -> dict[str, Any]:
    """The dashboard as Grafana imports it."""
    return {
        "uid": _UID,
        "title": "otel-queue",
        "description": "Asynq queues, the webhook deliveries on top of them, and how well both are known.",
        "tags": ["asynq", "convoy", "otel-queue"],
        "schemaVersion": _SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "timezone": "browser",
        "templating": {"list": list(_variables())},
        "annotations": {"list": []},
        "links": [],
        "panels": list(_panels()),
    }


def _variables() -> Iterator[dict[str, Any]]:
    yield {
        "name": "datasource", "label": "Data source", "type": "datasource", "query": "prometheus", "current": {},
        "hide": 0, "refresh": 1, "regex": "", "multi": False, "includeAll": False, "options": [],
    }  # fmt: skip
    for name, query in (
        ("job", "label_values(otel_queue_build_info, job)"),
        ("queue", f"label_values(asynq_queue_size{{{J}}}, queue)"),
        ("project", f"label_values(convoy_event_queue_total{{{J}}}, project)"),
    ):
        yield {
            "name": name, "label": name.capitalize(), "type": "query", "datasource": _DATASOURCE,
            "query": {"query": query, "refId": name}, "definition": query, "refresh": 2, "sort": 1, "regex": "",
            "multi": True, "includeAll": True, "allValue": ".*", "hide": 0, "options": [],
            "current": {"selected": True, "text": ["All"], "value": ["$__all"]},
        }  # fmt: skip


def _panels() -> Iterator[dict[str, Any]]:
    """Rows and their panels, from left to right and from the top down."""
    ids = iter(range(1, 1000))
    top = 0
    for title, panels in ROWS.items():
        yield {
            "id": next(ids), "type": "row", "title": title, "collapsed": False, "panels": [],
            "gridPos": {"x": 0, "y": top, "w": _COLUMNS, "h": 1},
        }  # fmt: skip
        top += 1
        for line in _lines(panels):
            left = 0
            for each in line:
                yield _panel(each, next(ids), left, top)
                left += each.width
            top += line[0].height


def _lines(panels: Iterable[Panel]) -> Iterator[list[Panel]]:
    """Panels that stand side by side: as many as there is room for, all of one height."""
    line: list[Panel] = []
    for each in panels:
        if line and (sum(one.width for one in line) + each.width > _COLUMNS or each.height != line[0].height):
            yield line
            line = []
        line.append(each)
    if line:
        yield line


def _panel(panel: Panel, number: int, left: int, top: int) -> dict[str, Any]:
    return {
        "id": number,
        "type": panel.kind,
        "title": panel.title,
        "description": panel.description,
        "datasource": _DATASOURCE,
        "gridPos": {"x": left, "y": top, "w": panel.width, "h": panel.height},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": _DATASOURCE, "expr": expression, "legendFormat": legend}
            for index, (expression, legend) in enumerate(panel.queries)
        ],
        "fieldConfig": {"defaults": _defaults(panel), "overrides": []},
        "options": _options(panel),
    }


def _defaults(panel: Panel) -> dict[str, Any]:
    found: dict[str, Any] = {"unit": panel.unit, "mappings": []}
    if panel.values:
        options = {str(value): {"text": text, "index": value} for value, text in panel.values.items()}
        found["mappings"] = [{"type": "value", "options": options}]
    if panel.kind == "timeseries":
        found["min"] = 0
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        found["custom"] = {"fillOpacity": 30 if panel.stacked else 5, "stacking": stacking, "showPoints": "never"}
    return found


def _options(panel: Panel) -> dict[str, Any]:
    if panel.kind == "stat":
        reduce = {"calcs": ["lastNotNull"], "fields": "", "values": False}
        return {"reduceOptions": reduce, "colorMode": "none", "textMode": "auto", "graphMode": "none"}
    return {
        "legend": {"displayMode": "list", "placement": "bottom", "showLegend": True},
        "tooltip": {"mode": "multi", "sort": "desc"},
    }


def text() -> str:
    """The file's content."""
    return json.dumps(dashboard(), indent=2) + "\n"


if __name__ == "__main__":
    OUTPUT.write_text(text(), encoding="utf-8")
