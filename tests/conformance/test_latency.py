"""How old the oldest pending task is; asynq looks at the head of pending only."""

import time

import pytest

from tests.conformance.lab import Lab
from tests.conformance.same import assert_queue_is_same


def test_the_head_of_pending_gives_the_latency(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", task_id="old")
    lab.enqueue("ok", queue="w", task_id="new")
    lab.age_pending("w", "old", 90)

    assert assert_queue_is_same(lab, "w").latency == pytest.approx(90, abs=10)


def test_an_empty_pending_has_no_latency(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", process_in=3600)

    assert assert_queue_is_same(lab, "w").latency == 0


def test_one_task_run_by_hand_hides_the_backlog_from_asynq_and_not_from_ours(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", task_id="A", process_in=3600)
    lab.go.call("run_task", queue="w", id="A")
    lab.enqueue("ok", queue="w", task_id="B")
    lab.age_pending("w", "B", 90)

    go = lab.go_info("w")
    assert (go["pending"], go["latency_ns"]) == (2, 0)
    assert assert_queue_is_same(lab, "w", apart_from={"latency"}).latency == pytest.approx(90, abs=10)


def test_a_task_archived_from_pending_and_run_again_counts_from_its_first_wait(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", task_id="C")
    lab.age_pending("w", "C", 90)
    lab.go.call("archive_task", queue="w", id="C")
    lab.go.call("run_task", queue="w", id="C")

    assert lab.go_info("w")["latency_ns"] == pytest.approx(90e9, abs=10e9)
    assert_queue_is_same(lab, "w")


def test_a_clock_ahead_makes_asynqs_latency_negative_and_ours_zero(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", task_id="ahead")
    lab.age_pending("w", "ahead", -100)

    assert lab.go_info("w")["latency_ns"] == pytest.approx(-100e9, abs=10e9)
    assert assert_queue_is_same(lab, "w", apart_from={"latency"}).latency == 0


def test_ours_says_how_late_scheduled_and_retry_tasks_are(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", task_id="due", process_in=3600)
    lab.enqueue("ok", queue="w", task_id="later", process_in=3600)
    assert lab.ours.queue_info("w").overdue_scheduled == 0
    lab.redis.zadd("asynq:{w}:scheduled", {"due": int(time.time()) - 50})

    info = assert_queue_is_same(lab, "w")

    assert info.overdue_scheduled == pytest.approx(50, abs=10)
    assert info.overdue_retry == 0
