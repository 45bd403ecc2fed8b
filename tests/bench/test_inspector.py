"""The inspector's benchmarks time nothing unless both inspectors report the same values of the same queues."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from typing import Any

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.queue_info import Snapshot
from otel_queue.config import RedisConfig
from otel_queue.redis_client import connect
from tests.asynq_peer import AsynqPeer
from tests.bench import inspector
from tests.bench.__main__ import main
from tests.bench.agreement import DisagreementError
from tests.go_program import ASYNQ_PEER, build_go_program

QUEUE = "queue-001"
TASK = keys.task(QUEUE, f"pending-00000000-{QUEUE}")  # the first that was pushed is the next to run


class Sides:
    """Our inspector on one Redis and asynq's on a copy of it: what is changed in `other` sets them apart."""

    def __init__(self, stack: ExitStack) -> None:
        server, other = (stack.enter_context(inspector.filled_redis(2)) for _ in range(2))
        self.other: redis.Redis = stack.enter_context(other.client())
        self._peer = stack.enter_context(AsynqPeer(other.url))
        self._link = stack.enter_context(closing(connect(RedisConfig(url=server.url))))

    def agree(self, *, with_memory: bool) -> None:
        collect = partial(inspector.collected, Inspector(self._link), with_memory=with_memory)
        inspector.agree_on_queues(collect, self._peer, with_memory=with_memory)


@pytest.fixture
def sides() -> Iterator[Sides]:
    with ExitStack() as stack:
        yield Sides(stack)


def test_queues_filled_alike_agree_and_memory_is_compared_where_both_sample_it(sides: Sides) -> None:
    sides.agree(with_memory=False)
    sides.agree(with_memory=True)
    sides.other.hset(keys.task(QUEUE, f"archived-00000000-{QUEUE}"), "msg", b"x" * 5_000)
    sides.agree(with_memory=False)
    with pytest.raises(DisagreementError, match=rf"^1 of \d+ values differ: {QUEUE} memory_usage: ours \d+, theirs"):
        sides.agree(with_memory=True)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        (lambda other: other.sadd(keys.QUEUES, "queue-002"), "queue-002 size: ours absent, theirs 0"),
        (lambda other: other.srem(keys.QUEUES, QUEUE), f"{QUEUE} size: ours 56, theirs absent"),
        (lambda other: other.lpop(keys.queue_key(QUEUE, "active")), f"{QUEUE} active: ours 1, theirs 0"),
        (lambda other: other.zpopmin(keys.queue_key(QUEUE, "retry")), f"{QUEUE} retry: ours 4, theirs 3"),
        (lambda other: other.zpopmin(keys.group(QUEUE, "group-b")), f"{QUEUE} aggregating: ours 6, theirs 5"),
        (lambda other: other.incr(keys.failed(QUEUE)), f"{QUEUE} failed_total: ours 3001, theirs 3002"),
        (lambda other: other.set(keys.queue_key(QUEUE, "paused"), 1), f"{QUEUE} paused: ours False, theirs True"),
        (lambda other: other.hset(TASK, "pending_since", "1000000000"), f"{QUEUE} waits since: ours "),
    ],
)  # fmt: skip
def test_one_value_that_differs_is_told_with_both_sides(
    sides: Sides, change: Callable[[redis.Redis], Any], field: str
) -> None:
    change(sides.other)
    with pytest.raises(DisagreementError) as disagreement:
        sides.agree(with_memory=False)
    assert field in str(disagreement.value)


@pytest.mark.parametrize(
    "bench",
    [
        "inspector-wall",
        "inspector-wall-1ms",
        "inspector-wall-memory",
        "inspector-redis-time",
        "inspector-redis-time-memory",
    ],
)
def test_a_row_whose_inspector_is_wrong_is_broken_before_anything_is_timed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], bench: str
) -> None:
    build_go_program(ASYNQ_PEER)  # a bench that lacks it is no failure
    asked: list[str] = []

    class WrongInspector(Inspector):
        def snapshot(self) -> Snapshot:
            snapshot = super().snapshot()
            *queues, last = snapshot.queues
            wrong = (*queues, last._replace(scheduled=0))
            return Snapshot(snapshot.time, wrong, (), (), {}, 0.0, 2)

    class WatchedPeer(AsynqPeer):
        def call(self, verb: str, **args: Any) -> Any:
            asked.append(verb)
            return super().call(verb, **args)

    monkeypatch.setattr(inspector, "QUEUES", (2,))
    monkeypatch.setattr(inspector, "Inspector", WrongInspector)
    monkeypatch.setattr(inspector, "AsynqPeer", WatchedPeer)
    assert main([bench]) == 1
    [row] = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (row["value"], row["ok"]) == (None, False)
    assert f"{QUEUE} scheduled: ours 0, theirs 3" in row["detail"]["error"]
    assert "bench_collect" not in asked
