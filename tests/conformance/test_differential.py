"""Random operations of the real client, inspector and servers; then both inspectors must tell the same."""

import os
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import pytest

from tests.asynq_peer import AsynqError
from tests.conformance.lab import Lab, until_it_holds
from tests.conformance.same import (
    assert_same_groups,
    assert_same_history,
    assert_same_queue_info,
    assert_same_servers,
    comparable,
    comparable_go,
)
from tests.conformance.story import Story

SEEDS = int(os.environ.get("TESTS_DIFF_SEEDS", "4"))
CHAPTERS = 6
OPERATIONS_PER_CHAPTER = 60
LISTED_STATES = ("pending", "active", "scheduled", "retry", "archived", "completed")


@dataclass(frozen=True)
class GoFault:
    """A number of asynq's that is known to be wrong, and when."""

    field: str
    reason: str
    applies: Callable[[dict[str, Any]], bool]


KNOWN_FAULTS: Final = (
    GoFault(
        "latency",
        "asynq looks at the head of pending only, and says 0 when it has no pending_since",
        lambda go: go["pending"] > 0 and go["latency_ns"] == 0,
    ),
    GoFault(
        "latency",
        "a pending_since ahead of the reader's clock makes asynq's latency negative",
        lambda go: go["latency_ns"] < 0,
    ),
    GoFault(
        "memory_usage",
        "groups without a task in the first five make asynq divide 0 by 0",
        lambda go: go["memory_usage"] == -(2**63),
    ),
)
# One sampled task without a hash fails the whole call: then only the lists tell asynq's numbers.
MEMORY_SCRIPT_FAULT: Final = "attempt to perform arithmetic on local 'bytes' (a boolean value)"


@pytest.mark.parametrize("seed", range(SEEDS), ids=lambda seed: f"seed-{seed}")
def test_both_inspectors_tell_the_same_of_any_history(lab: Lab, seed: int) -> None:
    story = Story(lab, seed)
    try:
        for _ in range(CHAPTERS):
            story.go_on(OPERATIONS_PER_CHAPTER)
            # A server may still be at work: then the two are asked until they saw the same moment.
            until_it_holds(lambda: assert_all_is_same(lab), within=10)
    except AssertionError as error:
        error.add_note(f"seed {seed}, what happened:\n" + "\n".join(story.told))
        raise


def assert_all_is_same(lab: Lab) -> None:
    queues = lab.ours.queues()
    assert queues == sorted(lab.go.call("queues"))
    assert [row.queue for row in lab.ours.snapshot().queues] == queues
    for queue in queues:
        assert_numbers_are_same(lab, queue)
        assert_lists_are_same(lab, queue)
        assert_same_groups(lab, queue)
        assert_same_history(lab, queue, 3)
        assert_task_types_are_same(lab, queue)
    assert_same_servers(lab)


def assert_numbers_are_same(lab: Lab, queue: str) -> None:
    info = lab.ours.queue_info(queue)
    (row,) = [row for row in lab.ours.snapshot().queues if row.queue == queue]
    go = go_info_unless_fault(lab, queue)
    if go is None:
        go_counts = {state: len(lab.go_tasks(queue, state, page_size=0)) for state in LISTED_STATES}
        for ours in (info, row):
            assert {state: ours.in_state(state) for state in LISTED_STATES} == go_counts
        return
    faults = {fault.field for fault in KNOWN_FAULTS if fault.applies(go)}
    assert_same_queue_info(info, go, apart_from=faults)
    assert_same_queue_info(row, go, apart_from={"memory_usage", *faults})
    if "latency" in faults:
        expected = first_pending_since(lab, queue)
        for ours in (info, row):
            if expected is None:
                assert ours.latency is None
            else:
                assert ours.latency == pytest.approx(max(ours.timestamp - expected, 0), abs=1e-3)
    if "memory_usage" in faults:
        assert info.memory_usage is not None
        assert info.memory_usage >= 0


def go_info_unless_fault(lab: Lab, queue: str) -> dict[str, Any] | None:
    """Asynq's GetQueueInfo, or None where its memory script fails."""
    try:
        return lab.go_info(queue)
    except AsynqError as error:
        if MEMORY_SCRIPT_FAULT not in str(error):
            raise
        return None


def first_pending_since(lab: Lab, queue: str) -> float | None:
    """Since when the first task waits, from the next to run on, that has a pending_since."""
    for task_id in reversed(lab.ids(f"asynq:{{{queue}}}:pending")):
        value = cast(bytes | None, lab.redis.hget(f"asynq:{{{queue}}}:t:{task_id}", "pending_since"))
        if value is not None:
            return int(value) / 1e9
    return None


def assert_lists_are_same(lab: Lab, queue: str) -> None:
    for state in LISTED_STATES:
        for page in (1, 2):
            ours = lab.ours.tasks(queue, state, page_size=7, page=page)
            go = lab.go_tasks(queue, state, page_size=7, page=page)
            assert len(ours) == len(go)
            for task, go_task in zip(ours, go, strict=True):
                if go_task["id"]:
                    assert comparable(task) == comparable_go(go_task)
                else:  # asynq's blank task: its hash or message is gone
                    assert task.type is None


def assert_task_types_are_same(lab: Lab, queue: str) -> None:
    ours = lab.ours.sample_task_types([queue], size=1_000)[queue]
    for state in LISTED_STATES:
        go = lab.go_tasks(queue, state, page_size=0)
        assert dict(ours[state]) == Counter(task["type"] for task in go if task["id"])
