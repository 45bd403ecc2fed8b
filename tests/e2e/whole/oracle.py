"""What each query of the dashboard has to answer, from the plan, asynq's own inspector, and the database's rows.

Nothing here is read from what is measured. A rate is known by what it is the rate of, a quantile by the counts in its
buckets, and the largest of something by all of it, which `countable` makes of a query.
"""

import platform
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Final

from otel_queue.catalog import CATALOG
from otel_queue.lifecycle import AttemptMade
from otel_queue.version import __version__
from tests.e2e.whole import plan
from tests.e2e.whole.answers import (
    INFINITE,
    Answer,
    Between,
    Labels,
    Question,
    buckets,
    counted,
    labelled,
    largest,
)
from tests.e2e.whole.delivering_worker import FIRST, RETRY, TASK_TYPE
from tests.e2e.whole.picture import CREATED, MATCHED, STILL, Picture, Way
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS, Families
from tests.simulation.comparison import counts_of

STATES: Final = ("pending", "active", "scheduled", "retry", "archived", "completed", "aggregating")
DOMAIN: Final = (EVENTS, EVENT_BACKLOG, DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS)
LANES: Final = ("queue", "ledger", "postgres", "shadow", "memory", "task_types", "retention", "otlp")
# Which records the ledger counts for itself, as its counters are named.
TALLIED: Final = ("duplicates_suppressed", "late_records", "clamped_records")
# A ULID is made before its row, ages are exported in float seconds, and two clocks of one machine are read.
AGE_SECONDS: Final = 1.0
# As AsynqQueueLatencyHigh and ConvoyDeliveryStuck have it.
LATENCY_LIMIT_SECONDS, STUCK_LIMIT_SECONDS = 300, 3_600


class Oracle:
    """The answers, for a picture at rest."""

    def __init__(self, picture: Picture) -> None:
        self._picture = picture
        self.asynq = {name: picture.asynq.call("queue_info", queue=name) for name in picture.asynq.call("queues")}
        self.families = self._families()

    def _families(self) -> Families:
        past, driven = counts_of(self._picture.past.simulation), plan.driven()
        return {name: {**past[name], **driven[name]} for name in (EVENTS, DELIVERIES, ATTEMPTS)}

    @cached_property
    def born(self) -> Mapping[tuple[str, str, str], float]:
        """When the oldest delivery in processing was created, by project, endpoint and source: the rows say it."""
        rows = self._picture.gateway.execute(
            "SELECT d.project_id, coalesce(d.endpoint_id, ''), coalesce(e.source_id, 'http'),"
            " extract(epoch FROM min(d.created_at)) FROM convoy.event_deliveries d"
            " JOIN convoy.events e ON e.id = d.event_id WHERE d.status = 'Processing' GROUP BY 1, 2, 3"
        )
        return {(project, endpoint, source): float(born) for project, endpoint, source, born in rows}

    def backlogs(self) -> Mapping[tuple[str, str, str], float | Between]:
        """The age of the oldest by project, endpoint and source; 0 for a known group with nothing in processing."""
        groups = {(labels[0], labels[2], labels[5]) for labels in self.families[DELIVERIES]}
        return {group: self._age(self.born[group]) if group in self.born else 0.0 for group in groups}

    def _age(self, born: float, until: float | None = None) -> Between:
        """It was read at some moment between the drive's end and now."""
        low = self._picture.ended - (born if until is None else until)
        return Between(max(low - AGE_SECONDS, 0.0), time.time() - born + AGE_SECONDS)

    def _waiting(self) -> Between:
        return self._age(*self._picture.waiting_since)

    # Answers -----------------------------------------------------------------------------------------------------

    def answers(self, way: Way) -> dict[Question, Answer]:
        """By panel and legend, for series that came this way, as of now."""
        return {
            **self._tasks(), **self._servers(), **self._domain(), **self._handlers(), **self._ingestion(),
            **self._pipeline(way), **self._migration(),
        }  # fmt: skip

    def _tasks(self) -> dict[Question, Answer]:
        infos, waiting = self.asynq, self._waiting()
        backlog = self._backlog()
        latency: Answer = {labelled(queue=name): waiting if infos[name]["pending"] else 0.0 for name in infos}
        worked = ("default", FIRST, RETRY)  # while Prometheus looked on
        return {
            ("Pending", "Pending"): self._total("pending"),
            ("Active", "Active"): self._total("active"),
            ("Longest pending", "Longest pending"): {labelled(): waiting},
            ("Queues paused", "Queues paused"): self._total("paused"),
            ("Tasks by state", "{{state}}"): {
                labelled(state=state): float(sum(info[state] for info in infos.values())) for state in STATES
            },
            ("Backlog", "{{queue}}"): backlog,
            ("Size", "{{queue}}"): self._of_queues(lambda name: infos[name]["size"]),
            ("Time pending", "{{queue}}"): latency,
            # What is not processed never ends.
            ("Time to drain", "{{queue}}"): {each: INFINITE if count else 0.0 for each, count in backlog.items()},
            ("Attempts", "{{queue}}"): self._of_queues(lambda name: infos[name]["processed_total"]),
            ("Attempts that fail", "{{queue}}"): self._of_queues(lambda name: infos[name]["failed_total"]),
            ("Share that fails", "{{queue}}"): {labelled(queue=name): 0.0 for name in worked},
            ("Retry and archived", "{{queue}} {{state}}"): {
                labelled(queue=name, state=state): float(info[state])
                for name, info in infos.items()
                for state in ("retry", "archived")
            },
            ("Overdue", "{{queue}} {{state}}"): {
                labelled(queue=name, state=state): 0.0 for name in infos for state in ("scheduled", "retry")
            },
            ("Groups", "{{queue}}"): self._of_queues(lambda name: infos[name]["groups"]),
            ("Convoy's two queues", CREATED[0]): {labelled(): float(CREATED[1])},
            ("Convoy's two queues", MATCHED[0]): {labelled(): float(MATCHED[1])},
            ("Task types", "{{queue}} {{state}} {{task_type}}"): counted(self._types()),
        }

    def _servers(self) -> dict[Question, Answer]:
        servers = self._picture.asynq.call("servers")
        concurrency = float(sum(each["concurrency"] for each in servers))
        may = self._of_queues(lambda name: sum(each["concurrency"] for each in servers if name in each["queues"]))
        busy = self._of_queues(
            lambda name: sum(worker["queue"] == name for each in servers for worker in each["active_workers"])
        )
        serving = self._of_queues(lambda name: sum(name in each["queues"] for each in servers))
        entries = self._picture.asynq.call("scheduler_entries")
        return {
            ("Lease expired", "Lease expired"): {labelled(): 0.0},
            ("Live servers", "Live servers"): {labelled(): float(len(servers))},
            ("Workers busy", "{{queue}}"): {each: busy[each] / count for each, count in may.items() if count},
            ("Workers busy", "all queues"): {labelled(): sum(busy.values()) / concurrency},
            # How long a task takes is not known where none has ended: a worker for each.
            ("Workers needed", "{{queue}}"): self._backlog(),
            ("Workers needed", "there are"): {labelled(): concurrency},
            ("Workers by queue", "{{queue}} busy"): busy,
            ("Workers by queue", "{{queue}} may be"): may,
            ("Servers by queue", "{{queue}}"): serving,
            ("Tasks that hang", "{{queue}} lease expired"): self._of_queues(lambda _: 0),
            ("Tasks that hang", "{{queue}} without a lease"): self._of_queues(lambda _: 0),
            ("Scheduler lateness", "latest periodic task"): {labelled(): 0.0},
            ("Periodic tasks", "registered"): {labelled(): float(len(entries))},
        }

    def _backlog(self) -> dict[Labels, float]:
        return self._of_queues(lambda name: self.asynq[name]["pending"] + self.asynq[name]["active"])

    def _of_queues(self, number: Callable[[str], float]) -> dict[Labels, float]:
        return {labelled(queue=name): float(number(name)) for name in self.asynq}

    def _total(self, what: str) -> Answer:
        return {labelled(): float(sum(info[what] for info in self.asynq.values()))}

    def _types(self) -> Iterator[Labels]:
        """One for each task of a state that is sampled: there are fewer than a sample takes."""
        for queue in self.asynq:
            for state in STATES:
                if state != "aggregating":
                    for task in self._picture.asynq.call("list_tasks", queue=queue, state=state, page_size=100):
                        yield labelled(queue=queue, state=state, task_type=task["type"])

    def _domain(self) -> dict[Question, Answer]:
        backlogs = self.backlogs()
        always = {  # endpoints that were called while Prometheus looked on, and what share of their calls succeeded
            **{(project, name): _share(plan.ENDPOINTS[name].answers) for project in plan.PROJECTS
               for name in plan.ENDPOINTS if plan.ENDPOINTS[name].answers},
            **{(plan.GO_PROJECT, name): _share((answer,)) for name, answer, _ in plan.GO_OUTCOMES
               if answer != "not called"},
        }  # fmt: skip
        return {
            ("Events", "{{project}}"): self._summed(EVENTS, "project"),
            ("Deliveries by status", "{{status}}"): self._summed(DELIVERIES, "status"),
            ("Oldest delivery in processing", "{{project}}"): largest(
                (labelled(project=project), age) for (project, _, _), age in backlogs.items()
            ),
            ("Oldest delivery in processing, worst endpoints", "{{project}} {{endpoint}}"): largest(
                (labelled(project=project, endpoint=endpoint), age) for (project, endpoint, _), age in backlogs.items()
            ),
            ("Attempts by outcome", "{{status}}"): self._summed(ATTEMPTS, "status"),
            ("Attempts by HTTP status", "{{http_status_code}}"): self._summed(ATTEMPTS, "http_status_code"),
            ("Attempts that succeed, worst endpoints", "{{project}} {{endpoint}}"): {
                labelled(project=project, endpoint=endpoint): share for (project, endpoint), share in always.items()
            },
        }

    def _summed(self, name: str, *keys: str) -> Answer:
        places = [CATALOG[name].keys.index(key) for key in keys]
        found: Counter[Labels] = Counter()
        for labels, count in self.families[name].items():
            found[labelled(**{key: labels[place] for key, place in zip(keys, places, strict=True)})] += count  # type: ignore[assignment]
        return dict(found)

    def _handlers(self) -> dict[Question, Answer]:
        calls = [
            (offer, endpoint, answer, RETRY if turn else FIRST)
            for offer, _, endpoint in plan.deliveries()
            for turn, answer in enumerate(endpoint.answers)
        ]
        runs = [(queue, _outcome(answer)) for _, _, answer, queue in calls]
        runs += [(FIRST, "success") for _, _, endpoint in plan.deliveries() if endpoint.hangs]
        return {
            ("Attempt duration, 95th percentile", "{{project}} {{status}}"): buckets(
                "convoy_event_delivery_attempt_duration_seconds",
                ((labelled(project=offer.project, status=_outcome(answer)), endpoint.attempt_seconds)
                 for offer, endpoint, answer, _ in calls),
            ),
            ("From acceptance to delivery, 95th percentile", "{{project}}"): buckets(
                "convoy_end_to_end_latency",
                ((labelled(project=offer.project), endpoint.end_to_end_seconds)
                 for offer, endpoint, answer, _ in calls if plan.succeeds(answer)),
            ),
            # How long these take is not known, but how many there were is.
            ("Handler duration, 95th percentile", "{{task_type}} {{outcome}}"): counted(
                labelled(task_type=TASK_TYPE, outcome=outcome, le="inf") for _, outcome in runs
            ),
            ("Wait before the first start, 95th percentile", "{{queue}}"): counted(
                labelled(queue=queue, le="inf") for queue, _ in runs
            ),
            ("Handlers by outcome", "{{queue}} {{outcome}}"): counted(
                labelled(queue=queue, outcome=outcome) for queue, outcome in runs
            ),
            ("Handlers running", "{{queue}} {{task_type}}"): {
                labelled(queue=queue, task_type=TASK_TYPE): 0.0 for queue, _ in runs
            },
            ("Tasks sent", "{{queue}} {{task_type}}"): counted(
                labelled(queue=queue, task_type=TASK_TYPE) for queue, _ in runs
            ),
        }  # fmt: skip

    def _ingestion(self) -> dict[Question, Answer]:
        offered = counted(labelled(source=offer.source or "http") for offer in plan.all_offers())
        refused = float(plan.REFUSED_A_ROUND * plan.ROUNDS)
        limited = float(plan.LIMITED_A_ROUND * plan.ROUNDS)
        return {
            ("Ingestion", "{{source}} offered"): offered,
            ("Ingestion", "{{source}} ingested"): offered,
            ("Ingestion", "{{source}} errors"): {labelled(source=plan.REFUSED_SHOWN): refused},
            ("Rate limiter", "{{bucket}} {{outcome}}"): {labelled(**plan.LIMITED): limited},
            ("Labels dropped", "{{metric}} {{reason}}"): {
                labelled(metric="convoy_ingest_error", reason="cleaned"): refused
            },
        }

    def _pipeline(self, way: Way) -> dict[Question, Answer]:
        backlogs = self.backlogs()
        series = {
            **{name: len(samples) for name, samples in self.families.items()},
            EVENT_BACKLOG: len({(project, source) for project, _, source in backlogs}),
            DELIVERY_BACKLOG: len(backlogs),
        }
        projects = {labels[0] for labels in self.families[EVENTS]}
        records = [labelled(record=kind) for kind in ("event", "delivery", "attempt")]
        processes = 1 + len(self._picture.workers)
        return {
            ("Lanes", "{{lane}} {{instance}}"): {
                labelled(job=way.job, instance=way.instance, lane=lane): 1.0 for lane in LANES
            },
            ("Errors", "{{lane}} {{reason}}"): {},
            ("Versions", "{{version}}, Python {{python_version}}"): {
                labelled(version=__version__, python_version=platform.python_version()): float(processes)
            },
            ("Shards", "projects of shard {{shard}}"): {labelled(shard="0"): float(len(projects))},
            ("Shards", "shards"): {labelled(): 1.0},
            ("Series", "{{instance}}"): {labelled(instance=way.instance): float(sum(series.values()))},
            ("Series by metric", "{{metric}}"): {
                labelled(metric=name): float(count) for name, count in series.items()
            },
            ("Series folded into other", "{{metric}}"): {labelled(metric=name): 0.0 for name in DOMAIN},
            ("Records not taken as they came", "{{record}} late"): dict.fromkeys(records, 0.0),
            ("Records not taken as they came", "{{record}} ahead of Redis"): dict.fromkeys(
                [*records, labelled(record="project"), labelled(record="day")], 0.0
            ),
            ("Counters held", "{{metric}}"): {
                labelled(metric=name): 0.0
                for name in (ATTEMPTS, *(f"otel_queue_{what}_total" for what in TALLIED))
            },
        }  # fmt: skip

    def _migration(self) -> dict[Question, Answer]:
        return {
            ("Source of each metric", "{{metric}} from {{source}}"): {
                labelled(metric=name, source="ledger", role="source"): 1.0 for name in DOMAIN
            },
            ("Within tolerance", "{{metric}}"): {labelled(metric=name): 1.0 for name in DOMAIN},
            ("Drift", "{{metric}}"): {
                labelled(metric=name): Between(0.0, 1.0) if name.endswith("_seconds") else 0.0 for name in DOMAIN
            },
            ("Series on one side only", "{{metric}} not in {{side}}"): {
                labelled(metric=name, side=side): 0.0 for name in DOMAIN for side in ("ledger", "postgres")
            },
            ("Known differences", "{{metric}} {{side}} {{difference}}"): {},
            # An increase needs two readings.
            ("Comparisons skipped", "{{metric}} {{reason}}"): {labelled(metric=ATTEMPTS, reason="first_look"): 1.0},
        }

    # Beside the dashboard ----------------------------------------------------------------------------------------

    def attempts_told_again(self) -> int:
        """How often a hook told of an attempt that had been told."""
        told = [each.attempt_id for each in self._picture.past.records if isinstance(each, AttemptMade)]
        flaky = sum(len(endpoint.answers) > 1 for _, _, endpoint in plan.deliveries())
        return len(told) - len(set(told)) + flaky

    def alerts(self) -> set[Labels]:
        """Those whose condition is met by what was driven; none has lasted long enough to fire."""
        waiting = self._waiting()
        old = {
            labelled(alertname="ConvoyDeliveryStuck", project=project, endpoint=endpoint)
            for (project, endpoint, _), born in self.born.items()
            if time.time() - born > STUCK_LIMIT_SECONDS
        }
        failing = {
            labelled(alertname="ConvoyEndpointFailing", project=labels[0], endpoint=labels[1])
            for labels in plan.driven()[ATTEMPTS]
            if not any(other[:3] == (*labels[:2], "success") for other in plan.driven()[ATTEMPTS])
        }
        late = waiting.high > LATENCY_LIMIT_SECONDS
        return {
            *old,
            *failing,
            *([labelled(alertname="AsynqQueueLatencyHigh", queue=STILL)] if late else []),
            # Its workers are all held, and tasks wait for them.
            labelled(alertname="AsynqWorkersSaturated"),
            # Two of three calls of the Go example fail.
            labelled(alertname="ConvoyDeliveryBudgetBurnsSlowly", project=plan.GO_PROJECT),
        }


def _outcome(answer: str | None) -> str:
    return "success" if plan.succeeds(answer) else "failure"


def _share(answers: tuple[str | None, ...]) -> float | Between:
    """Of calls that succeed. Where some do, their rates depend on which of them a scrape saw first."""
    succeeded = {plan.succeeds(answer) for answer in answers}
    return Between(0.0, 1.0) if len(succeeded) > 1 else float(succeeded.pop())
