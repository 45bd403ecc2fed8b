"""Asynq's estimate of a queue's memory, reproduced to the byte."""

from tests.conformance.lab import Lab
from tests.conformance.same import assert_queue_is_same


def test_memory_usage_is_estimated_from_the_same_samples(lab: Lab) -> None:
    for number in range(35):
        lab.enqueue("ok", queue="w", payload=b"x" * (37 * number))
    for number in range(25):
        lab.enqueue("ok", queue="w", process_in=3600 + number, payload=b"x" * (53 * number))
    for group, size in enumerate((23, 23, 23, 2, 2, 2, 2)):
        for number in range(size):
            lab.enqueue("ok", queue="w", group=f"G{group}", payload=b"x" * (11 * number * (group + 1)))

    go = lab.go_info("w")
    assert (go["size"], go["groups"], go["aggregating"]) == (137, 7, 77)
    ours = assert_queue_is_same(lab, "w")

    assert ours.memory_usage == go["memory_usage"]
    assert lab.ours.memory_usage(["w"]) == {"w": go["memory_usage"]}


def test_every_list_is_sampled(lab: Lab) -> None:
    for number in range(30):
        payload = b"x" * (101 * number)
        lab.enqueue("ok", queue="w", retention=3600, payload=payload)
        lab.enqueue("fail", queue="w", payload=payload)
        lab.enqueue("fail", queue="w", max_retry=0, payload=payload)
    lab.start_server(queues={"w": 1}, concurrency=4, retry_delay=3600)
    lab.wait_for_info("w", completed=30, retry=30, archived=30)

    assert_queue_is_same(lab, "w")


def test_a_member_without_a_hash_costs_asynq_the_whole_call_and_ours_nothing(lab: Lab) -> None:
    lab.enqueue("ok", queue="w", task_id="there")
    lab.enqueue("ok", queue="low", task_id="gone")
    lab.redis.delete("asynq:{low}:t:gone")

    usage = lab.ours.memory_usage()

    assert usage["w"] == lab.go_info("w")["memory_usage"]
    # The list's own key remains, and the missing hash counts nothing.
    assert usage["low"] == lab.redis.memory_usage("asynq:{low}:pending")
