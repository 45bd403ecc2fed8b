"""What the drills share: an impatient `otel-queue serve`, and a queue whose numbers are known."""

import redis

from otel_queue.asynq import keys
from otel_queue.asynq.message import TaskMessage
from otel_queue.demo.broker import Broker
from tests.servers.otel_queue import Scrape, ServeProcess

QUEUE = "CreateEventQueue"
PENDING = 3
PROCESSED = 70
TASKS_BY_STATE = dict.fromkeys(
    ("pending", "active", "scheduled", "retry", "archived", "completed", "aggregating"), 0
) | {"pending": PENDING}

# Everything is short here, so that a drill need not last.
IMPATIENT = """
[redis]
connect_timeout_seconds = 0.5

[queue]
timeout_seconds = 0.5
min_interval_seconds = 0.1
max_staleness_seconds = 1.0
memory_interval_seconds = 0.2

[server]
scrape_budget_seconds = 3.0
"""


def fill(client: redis.Redis | redis.RedisCluster, queue: str = QUEUE) -> None:
    """`PENDING` tasks, and `PROCESSED` that are gone."""
    broker = Broker(client, lambda: 1_700_000_000.0)
    for number in range(PENDING):
        broker.enqueue(TaskMessage("event:create", id=f"t{number}", queue=queue))
    client.set(keys.processed(queue), PROCESSED)
    client.set(keys.failed(queue), 0)


def is_up(scrape: Scrape, lane: str = "queue") -> bool:
    return scrape.value("otel_queue_up", lane=lane) == 1


def is_down(scrape: Scrape, lane: str = "queue") -> bool:
    return scrape.value("otel_queue_up", lane=lane) == 0


def shows(scrape: Scrape, queue: str = QUEUE) -> bool:
    """The queue's numbers are there, all of them and right."""
    counts = {state: scrape.value("asynq_tasks_enqueued_total", queue=queue, state=state) for state in TASKS_BY_STATE}
    return (
        counts == TASKS_BY_STATE
        and scrape.value("asynq_queue_size", queue=queue) == PENDING
        and scrape.value("asynq_tasks_processed_total", queue=queue) == PROCESSED
    )


def true_or_absent(scrape: Scrape) -> None:
    """Asserts that nothing about the queue is wrong; least of all a zero."""
    true = {
        "asynq_tasks_enqueued_total": PENDING,
        "asynq_queue_size": PENDING,
        "asynq_tasks_processed_total": PROCESSED,
        "asynq_tasks_failed_total": 0,
        "asynq_queue_paused_total": 0,
    }
    for name, value in true.items():
        found = scrape.values(name, queue=QUEUE)
        assert not found or sum(found) == value, f"{name} is {found}"
    scheduled = scrape.value("convoy_event_queue_scheduled_total")
    assert scheduled in (PENDING, None), f"convoy_event_queue_scheduled_total is {scheduled}"


def errors(scrape: Scrape, reason: str, lane: str = "queue") -> float:
    return scrape.value("otel_queue_errors_total", lane=lane, reason=reason) or 0.0


def wait_for_values(served: ServeProcess) -> Scrape:
    return served.scrape_until(lambda scrape: is_up(scrape) and shows(scrape), what="the queue is shown")
