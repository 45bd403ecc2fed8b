"""What both inspectors say of a Redis that asynq has never used."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest

from otel_queue.asynq.inspector import Inspector
from otel_queue.errors import QueueNotFoundError
from tests.asynq_peer import AsynqError
from tests.conformance.lab import Lab

BLANK = "queue name must contain one or more characters"


def test_a_redis_without_asynq_has_no_queues_servers_or_schedulers(lab: Lab) -> None:
    assert lab.go.call("queues") == []
    assert lab.go.call("groups", queue="nope") == []
    assert lab.go.call("servers") == []
    assert lab.go.call("scheduler_entries") == []

    snapshot = lab.ours.snapshot()

    assert (snapshot.queues, snapshot.servers, snapshot.scheduler_entries) == ((), (), ())
    assert not any(snapshot.failures.values())
    assert lab.ours.queues() == []
    assert not lab.ours.servers()
    assert not lab.ours.scheduler_entries()


@pytest.mark.parametrize(
    ("verb", "args", "text"),
    [
        ("queue_info", {}, 'NOT_FOUND: queue "nope" does not exist'),
        ("history", {"days": 1}, 'NOT_FOUND: queue "nope" does not exist'),
        ("list_tasks", {"state": "pending"}, "asynq: queue not found"),
        ("task_info", {"id": "x"}, "asynq: queue not found"),
    ],
)
def test_asynq_refuses_a_queue_that_is_not_listed(lab: Lab, verb: str, args: dict[str, Any], text: str) -> None:
    with pytest.raises(AsynqError) as refusal:
        lab.go.call(verb, queue="nope", **args)

    assert str(refusal.value) == text


@pytest.mark.parametrize(
    ("verb", "args", "text"),
    [
        ("queue_info", {}, BLANK),
        ("history", {"days": 1}, BLANK),
        ("list_tasks", {"state": "pending"}, f"asynq: {BLANK}"),
    ],
)
def test_asynq_refuses_a_blank_queue_name(lab: Lab, verb: str, args: dict[str, Any], text: str) -> None:
    with pytest.raises(AsynqError) as refusal:
        lab.go.call(verb, queue=" ", **args)

    assert str(refusal.value) == text


@pytest.mark.parametrize(
    "ask",
    [
        lambda inspector: inspector.queue_info("nope"),
        lambda inspector: inspector.history("nope", 1),
        lambda inspector: inspector.tasks("nope", "pending"),
    ],
    ids=["queue_info", "history", "tasks"],
)
def test_ours_refuses_a_queue_that_is_not_listed(lab: Lab, ask: Callable[[Inspector], object]) -> None:
    with pytest.raises(QueueNotFoundError):
        ask(lab.ours)


@pytest.mark.parametrize("days", [0, -1])
def test_both_refuse_a_history_without_days(lab: Lab, days: int) -> None:
    lab.enqueue("ok")

    with pytest.raises(AsynqError, match="the number of days must be positive"):
        lab.go.call("history", queue="default", days=days)
    with pytest.raises(ValueError, match="day"):
        lab.ours.history("default", days)


def test_asking_creates_no_key(lab: Lab) -> None:
    for verb in ("queue_info", "groups"):
        with contextlib.suppress(AsynqError):
            lab.go.call(verb, queue="nope")
    with contextlib.suppress(QueueNotFoundError):
        lab.ours.queue_info("nope")
    lab.ours.groups("nope")
    lab.ours.snapshot()

    assert lab.stored_keys() == []
