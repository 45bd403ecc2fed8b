"""A worker that delivers webhooks and records what happens: labels in headers, middleware, ledger, metrics.

Tasks travel in Asynq's own form, through the demo's writer of it, since Asynq has no Python client.
"""

import argparse
import sys
import time

from redis import Redis

from otel_queue import Task, Worker, committed, compose, enqueue, ledger_writer, recorded
from otel_queue.asynq.message import TaskMessage
from otel_queue.config import load_config
from otel_queue.demo.broker import Broker
from otel_queue.ulid import new_ulid

QUEUE = "EventQueue"
RETRY_SECONDS = 10.0


def deliver(task: Task) -> None:
    """The handler. Its database writes would stand before each report."""
    task.report_status("Processing")
    started = time.perf_counter()
    http_status = 503 if task.headers["oq-endpoint"] == "endpoint-2" else 200  # here it would be called
    task.report_attempt(http_status, duration_seconds=time.perf_counter() - started)
    task.report_status("Success" if http_status == 200 else "Failure")


def main() -> None:
    """Enqueues, works until the queue is empty, prints the process's metrics."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--redis-url", default="redis://127.0.0.1:6379/0")
    parser.add_argument("--tasks", type=int, default=20)
    arguments = parser.parse_args()
    config = load_config({"redis.url": arguments.redis_url})
    broker = Broker(Redis.from_url(arguments.redis_url), time.time)

    # Once per process. With OTEL_EXPORTER_OTLP_ENDPOINT set it pushes, too; listen="host:port" serves /metrics.
    # A long limit and no breaker fail the fewest tasks.
    worker = Worker(
        config, ledger=lambda: ledger_writer(config, waits=True, write_timeout_seconds=5.0, breaker_seconds=0.0)
    )
    recorder = worker.recorder

    def send(task: Task) -> bool:
        message = TaskMessage(task.type, task.payload, id=task.id, queue=task.queue, headers=task.headers)
        return broker.enqueue(message)

    # The API's side: an event, its delivery, and the task to deliver it.
    recorder.project_described(project="shop", project_name="Shop", organisation_id="org", organisation_name="Org")
    for number in range(arguments.tasks):
        event, delivery, endpoint = new_ulid(), new_ulid(), f"endpoint-{number % 3}"
        recorder.ingest("shop")
        recorder.event_created(project="shop", event_id=event, source=None)
        recorder.delivery_created(
            project="shop", delivery_id=delivery, endpoint=endpoint, event_type="order.paid", source=None
        )
        task = Task("EventProcessor", b"{}", queue=QUEUE, id=delivery)
        enqueue(recorder, send, task, project="shop", source=None, endpoint=endpoint, event_type="order.paid")

    # The worker's side: a task is acknowledged once its records are in the ledger, and else tried again.
    handle = compose(recorded(recorder), committed(recorder))(deliver)
    while (message := broker.dequeue(QUEUE)) is not None:
        task = Task(message.type, message.payload, message.queue, dict(message.headers), message.id, message.retried)
        try:
            handle(task)
        except Exception as error:  # WriteError among them
            broker.fail(message, time.time() + RETRY_SECONDS, str(error))
        else:
            broker.finish(message)

    sys.stdout.write(worker.render()[1].decode())
    worker.shutdown()


if __name__ == "__main__":
    main()
