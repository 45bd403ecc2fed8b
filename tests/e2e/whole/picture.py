"""Every part of a deployment, started together and driven by the plan."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import yaml

from otel_queue.config.settings import DOMAIN_METRICS
from tests.asynq_peer import AsynqPeer
from tests.e2e.gateways import AGENT, CONFIGS, GATEWAY, IMPATIENT
from tests.e2e.whole import plan
from tests.e2e.whole.delivering_worker import FIRST, RETRY, SERVICE, DeliveringWorker, delivering_worker
from tests.go_program import ASYNQ_PEER, COLLECTOR, GO_WORKER, build_go_program
from tests.ledger.go_recorder import replay
from tests.ledger.ledgers import ulid
from tests.ledger.oracle import ATTEMPTS
from tests.operations.rule_files import ALERTS, PROMETHEUS, RECORDING
from tests.operations.test_demo_on_dashboard import hurried
from tests.postgres.gateway import Gateway
from tests.servers.collector import CollectorServer, collector
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.process import temporary_directory, wait_until
from tests.servers.prometheus import PrometheusServer, prometheus_server
from tests.servers.redis import redis_server
from tests.simulation.comparison import counts_of
from tests.simulation.runs import Run, simulated

PULL_JOB: Final = "otel-queue"
EXPORTER: Final = "exporter"
INSTANCE: Final = "exporter-1"
PAST_EVENTS: Final = 300
PAST_DAYS: Final = 2
PATIENCE_SECONDS: Final = 120.0

# Types are sampled once, before anything moves: what ends between a sample's two steps is counted as an error.
CONFIG: Final = """
[queue]
min_interval_seconds = 0.5
memory_interval_seconds = 2
task_types_interval_seconds = 3600

[domain]
source = "ledger"
fallback = "postgres"
shadow = "postgres"

[ledger]
url = "{ledger}"

[postgres]
interval_seconds = 1
"""

# A queue of a real asynq that has something in every state and stays as it is.
STILL: Final = "notifications"
CONCURRENCY: Final = 4
WAITING: Final = 3
STILL_TASKS: Final = {
    "completed": 5, "archived": 2, "retry": 3, "active": CONCURRENCY, "pending": WAITING, "scheduled": 6,
    "aggregating": 2,
}  # fmt: skip
CREATED, MATCHED = ("CreateEventQueue", 3), ("EventWorkflowQueue", 2)
HOUR_SECONDS: Final = 3_600


@dataclass(frozen=True)
class Way:
    """How the exporter's series come to Prometheus, as the dashboard's variable and their labels name it."""

    job: str
    instance: str

    @property
    def jobs(self) -> str:
        """For $job: the exporter by this way, and the workers, which push."""
        return f"{self.job}|{SERVICE}"


@dataclass
class Picture:
    """What runs, and what was done to it until `ended` (Unix seconds)."""

    gateway: Gateway
    asynq: AsynqPeer
    workers: list[DeliveringWorker]
    exporter: ServeProcess
    agent: CollectorServer
    prometheus: PrometheusServer
    past: Run
    go_command: list[str]
    waiting_since: tuple[float, float]
    ended: float = 0.0

    @property
    def pulled(self) -> Way:
        return Way(PULL_JOB, self.exporter.address)

    @property
    def pushed(self) -> Way:
        return Way(EXPORTER, INSTANCE)

    def drive(self) -> None:
        """Round by round; each is in Prometheus before the next begins."""
        self.workers[0].describe_projects()
        before = sum(counts_of(self.past.simulation)[ATTEMPTS].values())
        for number in range(plan.ROUNDS):
            self._round(number)
            attempts = before + sum(plan.driven(number + 1)[ATTEMPTS].values())
            self.wait(partial(self._has_attempts, attempts), f"round {number} is in Prometheus")
        self.ended = time.time()

    def _round(self, number: int) -> None:
        # The Go worker and the others write to the same ledger at the same time.
        with subprocess.Popen(self.go_command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as go:
            for turn, offer in enumerate(plan.offers(number)):
                self._worker(turn).offer(offer)
            for queue in (FIRST, RETRY):
                turn = 0
                while self._worker(turn).work(queue):
                    turn += 1
            for turn in range(plan.LIMITED_A_ROUND):
                self._worker(turn).limit()
            for turn in range(plan.REFUSED_A_ROUND):
                self._worker(turn).refuse()
            out, errors = go.communicate(timeout=PATIENCE_SECONDS)
        assert go.returncode == 0, errors
        stats = json.loads(out)
        assert stats["Queued"] + stats["Dropped"] + stats["Invalid"] + stats["Unlabelled"] == 0, stats
        write_rows_of_go(self.gateway, number)

    def _worker(self, turn: int) -> DeliveringWorker:
        return self.workers[turn % len(self.workers)]

    def _has_attempts(self, count: float) -> bool:
        return sum(each.value for each in self.prometheus.query(f'{ATTEMPTS}{{job="{PULL_JOB}"}}')) == count

    def settle(self) -> None:
        """Until whatever is shown was read when the drive had ended, by both ways, and compared twice since."""
        self.wait(
            lambda: all(self._read_at(way) > self.ended for way in (self.pulled, self.pushed)), "all is read anew"
        )
        self.wait(lambda: len(self._comparisons()) == len(DOMAIN_METRICS), "every metric is compared")
        started = self._comparisons()
        # The first that is counted may have begun before the drive had ended.
        self.wait(
            lambda: all(self._comparisons().get(metric, 0) >= count + 3 for metric, count in started.items()),
            "ledger and database are compared at rest",
        )

    def _read_at(self, way: Way) -> float:
        """When the lane that was read longest ago was read; 0 while one is absent."""
        lanes = "queue|ledger|memory|shadow"
        found = self.prometheus.query(f'otel_queue_last_success_timestamp_seconds{{job="{way.job}", lane=~"{lanes}"}}')
        return min((each.value for each in found), default=0.0) if len(found) == len(lanes.split("|")) else 0.0

    def _comparisons(self) -> Mapping[str, float]:
        found = self.prometheus.query(f'otel_queue_shadow_comparisons_total{{job="{EXPORTER}"}}')
        return {each.labels["metric"]: each.value for each in found}

    def wait(self, reached: Callable[[], object], what: str, within: float = PATIENCE_SECONDS) -> None:
        """Until `reached` is true; else the parts say what they complain of."""
        try:
            wait_until(reached, within=within, what=what)
        except AssertionError as error:
            complaints = [
                *self.prometheus.target_errors(), self.exporter.process.logs()[-3_000:],
                self.agent.process.logs()[-1_000:],
            ]  # fmt: skip
            raise AssertionError("\n".join([str(error), *complaints])) from error


def write_rows_of_go(gateway: Gateway, round_number: int) -> None:
    """The rows that the Go example's deliveries would have, if it had a database."""
    now = time.time_ns() // 1000
    rows = [
        (ulid(now, round_number << 16 | turn), *plan.GO_OUTCOMES[turn % len(plan.GO_OUTCOMES)])
        for turn in range(plan.GO_TASKS_A_ROUND)
    ]
    gateway.execute_many(
        "INSERT INTO convoy.events (id, event_type, project_id, status) VALUES (%s, %s, %s, 'Success')",
        [(id, plan.GO_EVENT_TYPE, plan.GO_PROJECT) for id, *_ in rows],
    )
    gateway.execute_many(
        "INSERT INTO convoy.event_deliveries (id, event_id, status, endpoint_id, event_type, project_id)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        [(id, id, status, endpoint, plan.GO_EVENT_TYPE, plan.GO_PROJECT) for id, endpoint, _, status in rows],
    )
    gateway.execute_many(
        "INSERT INTO convoy.delivery_attempts (id, project_id, endpoint_id, event_delivery_id, http_status, status)"
        " VALUES (%s, %s, %s, %s, %s, %s)",
        [
            (id, plan.GO_PROJECT, endpoint, id, answer, plan.succeeds(answer))
            for id, endpoint, answer, _ in rows
            if answer != "not called"
        ],
    )


def write_projects(gateway: Gateway) -> None:
    """Rows of the projects that are driven."""
    for id, names in {**plan.PROJECTS, plan.GO_PROJECT: plan.GO_NAMES}.items():
        gateway.execute(
            "INSERT INTO convoy.organisations (id, name) VALUES (%s, %s) ON CONFLICT DO NOTHING",
            names.organisation, names.organisation_name,
        )  # fmt: skip
        gateway.execute(
            "INSERT INTO convoy.projects (id, name, organisation_id) VALUES (%s, %s, %s)",
            id, names.project, names.organisation,
        )  # fmt: skip


def fill_still_queue(asynq: AsynqPeer) -> tuple[float, float]:
    """Real tasks in every state; when the first and the last of those that wait were enqueued."""
    asynq.call("start_server", queues={STILL: 1}, concurrency=CONCURRENCY, retry_delay=HOUR_SECONDS)
    far = {"process_in": HOUR_SECONDS}
    for type_, state, options in (
        ("ok:mail", "completed", {"retention": 24 * HOUR_SECONDS}),
        ("skip_retry:mail", "archived", {}),
        ("fail:mail", "retry", {"max_retry": 3}),
        ("ok:mail", "scheduled", far),
        ("ok:mail", "aggregating", {"group": "digest"}),
    ):
        for _ in range(STILL_TASKS[state]):
            asynq.call("enqueue", type=type_, queue=STILL, **options)
    wait_for(asynq, lambda info: all(info[state] == STILL_TASKS[state] for state in ("completed", "archived", "retry")))
    for _ in range(STILL_TASKS["active"]):
        asynq.call("enqueue", type="block:mail", queue=STILL)
    wait_for(asynq, lambda info: info["active"] == CONCURRENCY)
    first = time.time()
    for _ in range(STILL_TASKS["pending"]):
        asynq.call("enqueue", type="ok:mail", queue=STILL)
    last = time.time()
    for queue, count in (CREATED, MATCHED):
        for _ in range(count):
            asynq.call("enqueue", type="ok:event", queue=queue, **far)
    asynq.call("start_scheduler", heartbeat_interval=1, entries=[{"spec": "@every 24h", "type": "ok:report"}])
    wait_for(asynq, lambda info: {state: info[state] for state in STILL_TASKS} == STILL_TASKS)
    return first, last


def wait_for(asynq: AsynqPeer, is_reached: Callable[[Any], object]) -> None:
    wait_until(lambda: is_reached(asynq.call("queue_info", queue=STILL)), what=f"{STILL} is as it is to be")


def scraping(exporter: ServeProcess, gateway: CollectorServer, rules: Path) -> str:
    """The example's configuration, without the Convoy that is not here, and with the Collector's job beside it."""
    settings = yaml.safe_load((PROMETHEUS / "prometheus.yaml").read_text(encoding="utf-8"))
    pushed = yaml.safe_load((CONFIGS / "prometheus.yaml").read_text(encoding="utf-8"))
    pull = next(job for job in settings["scrape_configs"] if job["job_name"] == PULL_JOB)
    push = next(job for job in pushed["scrape_configs"] if job["job_name"] == "otel-collector")
    pull.pop("scrape_timeout")  # it would be longer than a test's interval
    pull["static_configs"][0]["targets"] = [exporter.address]
    push["static_configs"] = [{"targets": [gateway.metrics_address], "labels": pull["static_configs"][0]["labels"]}]
    settings["scrape_configs"] = [pull, push]
    settings["rule_files"] = [str(hurried(file, rules)) for file in (RECORDING, ALERTS)]
    return yaml.safe_dump(settings)


@contextlib.contextmanager
def picture(gateway: Gateway) -> Iterator[Picture]:
    """All parts, with a past in database and ledger; driven, and at rest."""
    for program in (COLLECTOR, GO_WORKER, ASYNQ_PEER):
        build_go_program(program)
    write_projects(gateway)
    with contextlib.ExitStack() as stack:
        queues, ledger = (stack.enter_context(redis_server()) for _ in range(2))
        otel_queue = Path(sys.executable).with_name("otel-queue")
        subprocess.run(
            [otel_queue, "ledger", "init", "--ledger-url", ledger.url], check=True, capture_output=True, timeout=60
        )
        past = stack.enter_context(simulated(gateway, PAST_EVENTS, days=PAST_DAYS))
        replay(ledger.url, past.records)
        asynq = stack.enter_context(AsynqPeer(queues.url))
        waiting_since = fill_still_queue(asynq)
        # What has no series any more goes from the gateway soon: see `metric_expiration` in its configuration.
        collecting = stack.enter_context(collector(GATEWAY, environment={"METRIC_EXPIRATION": "10s"}))
        agent = stack.enter_context(
            collector(AGENT, IMPATIENT, environment={"GATEWAY_ENDPOINT": collecting.http_endpoint})
        )
        exporter = stack.enter_context(serve(queues.url, config=CONFIG.format(ledger=ledger.url), environment={
            "OTEL_QUEUE_POSTGRES_DSN": gateway.dsn.reveal(),
            "OTEL_EXPORTER_OTLP_ENDPOINT": agent.http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": "1000",
            "OTEL_SERVICE_NAME": EXPORTER,
            "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={INSTANCE}",
        }))  # fmt: skip
        workers = [
            stack.enter_context(
                delivering_worker(
                    number, queues=queues.url, ledger=ledger.url, agent=agent.http_endpoint,
                    database=gateway.dsn.reveal(),
                )
            )
            for number in (1, 2)
        ]  # fmt: skip
        rules = stack.enter_context(temporary_directory())
        prometheus = stack.enter_context(prometheus_server(scraping(exporter, collecting, rules), scrape_interval="1s"))
        go_command = [
            str(build_go_program(GO_WORKER)), "-redis", queues.url, "-ledger", ledger.url,
            "-tasks", str(plan.GO_TASKS_A_ROUND),
        ]  # fmt: skip
        made = Picture(gateway, asynq, workers, exporter, agent, prometheus, past, go_command, waiting_since)
        made.drive()
        made.settle()
        yield made
