"""Each alert on queues, servers and schedulers fires when its fault is caused, and ends with the fault.

All faults begin together, each on a queue of its own, and each test waits for its alert and ends its fault. They run in
the order in which they stand.
"""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from otel_queue.asynq import keys
from otel_queue.asynq.message import SchedulerEntry, ServerInfo, TaskMessage, WorkerInfo
from otel_queue.demo.broker import Broker
from otel_queue.demo.heartbeat import beat_scheduler, beat_server, clear_scheduler
from tests.operations.alert_drills import Alerts, again_and_again, alerting
from tests.servers.otel_queue import serve
from tests.servers.process import wait_until
from tests.servers.redis import redis_server

QUICK = """
[queue]
min_interval_seconds = 0.1
memory_interval_seconds = 0
"""
WORKERS = 2
ARCHIVE_FULL = 9_001

pytestmark = pytest.mark.timeout(240)


class Stage:
    """Queues with a fault each, one live server, one live scheduler."""

    def __init__(self, client: Any, url: str) -> None:
        self.client, self.url = client, url
        self.broker = Broker(client, time.time)
        self.number = 0
        self.tasks_fail = True
        self.server = ServerInfo("host", 1, "server", WORKERS, {"saturated": 1}, active_worker_count=WORKERS)
        self.busy = WORKERS
        self.scheduler = keys.scheduler("host", 2, "scheduler")
        self.entry = SchedulerEntry("entry", "@every 60s", "periodic", next_enqueue_time=time.time() - 300)
        self.is_scheduling = True
        self.lost: TaskMessage | None = None

    def ago(self, seconds: float) -> Broker:
        """As a client that many seconds ago."""
        return Broker(self.client, lambda: time.time() - seconds)

    def enqueue(self, queue: str, broker: Broker | None = None, *, process_at: float = 0.0) -> TaskMessage:
        self.number += 1
        task = TaskMessage("t", id=f"t{self.number}", queue=queue)
        assert (broker or self.broker).enqueue(task, process_at=process_at)
        return task

    def work(self) -> None:
        """One task of the queue `failing`."""
        self.enqueue("failing")
        task = self.broker.dequeue("failing")
        assert task is not None
        if self.tasks_fail:
            self.broker.archive(task, "boom")
        else:
            self.broker.finish(task)

    def beat(self) -> None:
        workers = [
            WorkerInfo("host", 1, "server", f"w{number}", "t", b"", "saturated", time.time(), time.time() + 60)
            for number in range(self.busy)
        ]
        beat_server(self.broker, self.server, workers)
        if self.is_scheduling:
            beat_scheduler(self.broker, self.scheduler, [self.entry])

    def archive(self, queue: str, count: int) -> None:
        for _ in range(count):
            self.enqueue(queue)
            task = self.broker.dequeue(queue)
            assert task is not None
            self.broker.archive(task, "boom")

    def begin(self) -> None:
        self.archive("given-up", 1)
        self.enqueue("paused")
        self.broker.pause("paused")
        self.enqueue("slow", self.ago(400))
        for _ in range(150):
            self.enqueue("backlog")
        self.client.zadd(
            keys.queue_key("full", "archived"), {f"old{number}": time.time() for number in range(ARCHIVE_FULL)}
        )
        self.client.sadd(keys.QUEUES, "full")
        self.enqueue("saturated")
        self.enqueue("unserved")
        self.enqueue("hung", self.ago(100))
        self.ago(100).dequeue("hung")
        self.enqueue("lost")
        self.lost = self.broker.dequeue("lost")
        self.client.zrem(keys.queue_key("lost", "lease"), *self.client.zrange(keys.queue_key("lost", "lease"), 0, -1))
        self.enqueue("overdue", self.ago(400), process_at=time.time() - 300)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with redis_server() as server, contextlib.closing(server.client()) as client:
        made = Stage(client, server.url)
        made.begin()
        with again_and_again(made.work), again_and_again(made.beat):
            yield made


@pytest.fixture(scope="module")
def alerts(stage: Stage) -> Iterator[Alerts]:
    with serve(stage.url, config=QUICK) as exporter, alerting({"main": [exporter.address]}) as found:
        yield found


def test_tasks_that_are_given_up(stage: Stage, alerts: Alerts) -> None:
    """It compares with an hour ago, so the archive has to be known for that long: half of it before, half after."""
    before = 'count_over_time(queue_state:asynq_tasks_enqueued:max{queue="given-up", state="archived"}[1m]) > 20'
    wait_until(lambda: alerts.prometheus.query(before), what="the archive as it was is recorded for ten seconds")
    stage.archive("given-up", 11)
    assert alerts.fires("AsynqQueueArchivedGrowing", queue="given-up").startswith("11 more tasks")
    stage.broker.delete_archived("given-up")
    alerts.ends("AsynqQueueArchivedGrowing", queue="given-up")


def test_a_queue_that_is_paused(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqQueuePaused", queue="paused")
    stage.broker.unpause("paused")
    alerts.ends("AsynqQueuePaused", queue="paused")


def test_a_task_that_waits_long(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqQueueLatencyHigh", queue="slow")
    assert not alerts.firing("AsynqQueueLatencyHigh", queue="backlog")
    task = stage.broker.dequeue("slow")
    assert task is not None
    stage.broker.finish(task)
    alerts.ends("AsynqQueueLatencyHigh", queue="slow")


def test_a_backlog_that_does_not_drain(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqQueueNotDraining", queue="backlog")
    for _ in range(100):
        task = stage.broker.dequeue("backlog")
        assert task is not None
        stage.broker.finish(task)
    alerts.ends("AsynqQueueNotDraining", queue="backlog")


def test_tasks_that_fail(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqQueueFailing", queue="failing")
    stage.tasks_fail = False
    alerts.ends("AsynqQueueFailing", queue="failing")


def test_an_archive_that_is_nearly_full(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqQueueArchiveFull", queue="full")
    stage.broker.delete_archived("full")
    alerts.ends("AsynqQueueArchiveFull", queue="full")


def test_workers_that_are_all_busy_while_tasks_wait(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqWorkersSaturated")
    stage.busy = 1
    alerts.ends("AsynqWorkersSaturated")


def test_a_queue_without_a_server(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqQueueWithoutServer", queue="unserved")
    assert not alerts.firing("AsynqQueueWithoutServer", queue="saturated")
    stage.server = replace(stage.server, queues={"saturated": 1, "unserved": 1})
    alerts.ends("AsynqQueueWithoutServer", queue="unserved")


def test_a_task_whose_server_died(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqTasksLeaseExpired", queue="hung")
    assert stage.broker.recover(["hung"], retry_seconds=60) == 1
    alerts.ends("AsynqTasksLeaseExpired", queue="hung")


def test_an_active_task_without_a_lease(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqTasksWithoutLease", queue="lost")
    assert stage.lost is not None
    assert stage.client.lrange("asynq:{lost}:active", 0, -1) == [stage.lost.id.encode()]
    # As the runbook says it; a live server then does the rest.
    stage.client.execute_command("ZADD", "asynq:{lost}:lease", "NX", 0, stage.lost.id)
    assert stage.broker.recover(["lost"], retry_seconds=60) == 1
    alerts.ends("AsynqTasksWithoutLease", queue="lost")


def test_a_scheduled_task_that_nobody_forwards(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqTasksOverdue", queue="overdue", state="scheduled")
    stage.broker.forward(["overdue"])
    alerts.ends("AsynqTasksOverdue", queue="overdue")


def test_a_scheduler_that_is_late(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("AsynqSchedulerLate")
    stage.entry = replace(stage.entry, next_enqueue_time=time.time() + 600)
    alerts.ends("AsynqSchedulerLate")


def test_a_scheduler_that_is_gone(stage: Stage, alerts: Alerts) -> None:
    stage.is_scheduling = False
    wait_until(lambda: _clear(stage), what="no beat came in between")
    alerts.fires("AsynqSchedulerGone")
    stage.is_scheduling = True
    alerts.ends("AsynqSchedulerGone")


def _clear(stage: Stage) -> bool:
    """A scheduler that is ending; a beat that was under way may have come after it."""
    clear_scheduler(stage.broker, stage.scheduler, [stage.entry.id])
    return not stage.client.exists(stage.scheduler)
