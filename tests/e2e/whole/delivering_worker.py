"""A gateway's worker in a process of its own: takes events in, delivers them, and writes its rows before it records.

It does one thing for each line of its input, a JSON object, and answers with a line. Metrics go by OTLP to an agent.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from typing import Any, Final

import psycopg
from redis import Redis

from otel_queue import Task, Worker, compose, enqueue, grouped, ledger_writer, recorded
from otel_queue.asynq.message import TaskMessage
from otel_queue.config import load_config
from otel_queue.demo.broker import Broker
from otel_queue.ulid import new_ulid
from tests.e2e.whole.plan import ENDPOINTS, LIMITED, PROJECTS, REFUSED_SOURCE, Offer, succeeds

FIRST, RETRY = "EventQueue", "RetryEventQueue"
TASK_TYPE = "EventProcessor"
SERVICE: Final = "gateway-worker"
END_TIMEOUT_SECONDS: Final = 30.0


class DeliveringWorker:
    """The process, as its test sees it."""

    def __init__(self, number: int, *, queues: str, ledger: str, database: str, agent: str) -> None:
        self.instance = f"{SERVICE}-{number}"
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OTEL_")}
        self._process = subprocess.Popen(
            [sys.executable, "-m", __name__, queues, ledger, database],
            env={
                **inherited,
                "OTEL_EXPORTER_OTLP_ENDPOINT": agent,
                "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "OTEL_SERVICE_NAME": SERVICE,
                "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={self.instance}",
            },
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def describe_projects(self) -> None:
        self._ask(do="describe")

    def offer(self, offer: Offer) -> None:
        """The event is taken in: rows, records and the tasks of its deliveries are there."""
        self._ask(do="offer", offer=offer.words())

    def work(self, queue: str) -> bool:
        """One task of the queue is handled; False where there is none."""
        return self._ask(do="work", queue=queue) == "done"

    def limit(self) -> None:
        """A rate limiter says no."""
        self._ask(do="limit")

    def refuse(self) -> None:
        """An event cannot be ingested."""
        self._ask(do="refuse")

    def _ask(self, **command: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline().strip()
        assert answer in ("done", "none"), f"{self.instance} ended with exit code {self._process.wait()}"
        return answer

    def end(self) -> None:
        """Its input ends, and so does it."""
        try:
            self._process.communicate(timeout=END_TIMEOUT_SECONDS)
        finally:
            self._process.kill()
            self._process.wait()


@contextlib.contextmanager
def delivering_worker(number: int, **where: str) -> Iterator[DeliveringWorker]:
    """`where` are the URLs of `queues`, `ledger` and `agent`, and the connection string of `database`."""
    worker = DeliveringWorker(number, **where)
    try:
        yield worker
    finally:
        worker.end()


class Application:
    """The application's code, with the calls to otel-queue where its rows are written."""

    def __init__(self, queues: str, ledger: str, database: str) -> None:
        config = load_config({"redis.url": queues, "ledger.url": ledger})
        self.worker = Worker(config, ledger=lambda: ledger_writer(config, waits=True))
        self.recorder = self.worker.recorder
        self._broker = Broker(Redis.from_url(queues), time.time)
        self._rows = psycopg.connect(database, autocommit=True)
        self._handle = compose(recorded(self.recorder), grouped(self.recorder))(self._deliver)

    def describe(self) -> None:
        for id, names in PROJECTS.items():
            self.recorder.project_described(
                project=id,
                project_name=names.project,
                organisation_id=names.organisation,
                organisation_name=names.organisation_name,
            )

    def take_in(self, offer: Offer) -> None:
        """What the API does, and the matching of an event behind it."""
        self.recorder.ingest(offer.project, offer.source)
        event = new_ulid()
        self._rows.execute(
            "INSERT INTO convoy.events (id, event_type, project_id, source_id, status)"
            " VALUES (%s, %s, %s, %s, 'Success')",
            (event, offer.event_type, offer.project, offer.source),
        )
        self.recorder.event_created(project=offer.project, event_id=event, source=offer.source)
        for endpoint in offer.endpoints:
            self._create(offer, event, endpoint)
        self.recorder.ingest_succeeded(offer.project, offer.source)

    def _create(self, offer: Offer, event: str, endpoint: str) -> None:
        delivery = new_ulid()
        will = ENDPOINTS[endpoint]
        status = "Scheduled" if will.answers or will.hangs else "Discarded"
        created = self._rows.execute(
            "INSERT INTO convoy.event_deliveries (id, event_id, status, endpoint_id, event_type, project_id)"
            " VALUES (%s, %s, %s, %s, %s, %s) RETURNING created_at",
            (delivery, event, status, endpoint, offer.event_type, offer.project),
        ).fetchone()
        assert created is not None
        self.recorder.delivery_created(
            project=offer.project, delivery_id=delivery, endpoint=endpoint, event_type=offer.event_type,
            source=offer.source, status=status, created_us=round(created[0].timestamp() * 1e6),
        )  # fmt: skip
        if status == "Scheduled":
            enqueue(
                self.recorder, self._send, Task(TASK_TYPE, b"{}", queue=FIRST, id=delivery), project=offer.project,
                source=offer.source, endpoint=endpoint, event_type=offer.event_type,
            )  # fmt: skip

    def _send(self, task: Task) -> bool:
        return self._broker.enqueue(
            TaskMessage(task.type, task.payload, id=task.id, queue=task.queue, headers=task.headers)
        )

    def work(self, queue: str) -> bool:
        message = self._broker.dequeue(queue)
        if message is None:
            return False
        self._handle(
            Task(message.type, message.payload, message.queue, dict(message.headers), message.id, message.retried)
        )
        self._broker.finish(message)
        return True

    def _deliver(self, task: Task) -> None:
        name = task.headers["oq-endpoint"]
        endpoint, project = ENDPOINTS[name], task.headers["oq-project"]
        self._set_status(task, "Processing")
        if endpoint.hangs:
            return
        answer = endpoint.answers[1 if task.queue == RETRY else 0]
        attempt = new_ulid()
        self._rows.execute(
            "INSERT INTO convoy.delivery_attempts (id, project_id, endpoint_id, event_delivery_id, http_status, status)"
            " VALUES (%s, %s, %s, %s, %s, %s)",
            (attempt, project, name, task.id, answer, succeeds(answer)),
        )
        task.report_attempt(answer, attempt_id=attempt, duration_seconds=endpoint.attempt_seconds)
        if succeeds(answer):
            self._set_status(task, "Success")
            self.recorder.end_to_end(project, name, endpoint.end_to_end_seconds)
        elif task.queue == FIRST and len(endpoint.answers) > 1:
            # Told once more, as by a hook that runs twice: the attempt's id makes it one.
            task.report_attempt(answer, attempt_id=attempt)
            self._set_status(task, "Retry")
            # With the labels that it has.
            again = Task(TASK_TYPE, b"{}", queue=RETRY, id=task.id, headers=task.headers)
            enqueue(self.recorder, self._send, again)
        else:
            self._set_status(task, "Failure")

    def _set_status(self, task: Task, status: str) -> None:
        self._rows.execute(
            "UPDATE convoy.event_deliveries SET status = %s, updated_at = now() WHERE id = %s", (status, task.id)
        )
        task.report_status(status)


def _obey() -> None:
    application = Application(*sys.argv[1:])
    for line in sys.stdin:
        command = json.loads(line)
        answer = "done"
        match command["do"]:
            case "describe":
                application.describe()
            case "offer":
                words = command["offer"]
                application.take_in(Offer(**{**words, "endpoints": tuple(words["endpoints"])}))
            case "work":
                answer = "done" if application.work(command["queue"]) else "none"
            case "limit":
                application.recorder.rate_limited(**LIMITED)
            case "refuse":
                application.recorder.ingest_failed("crm", REFUSED_SOURCE)
        sys.stdout.write(answer + "\n")
        sys.stdout.flush()
    application.worker.shutdown()


if __name__ == "__main__":
    _obey()
