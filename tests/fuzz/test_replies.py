"""Replies that no Redis should give: every method of the inspector returns or raises ReadError."""

import random
from collections.abc import Callable, Sequence
from typing import Any, Final

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from otel_queue.asynq.families import memory_families, snapshot_families, task_type_families
from otel_queue.asynq.inspector import Inspector
from otel_queue.asynq.queue_info import Snapshot
from otel_queue.errors import ReadError
from otel_queue.redis_client import Answers, ErrorReply, Request
from tests.fuzz.answers import answer, parse
from tests.fuzz.budget import REPLIES, inputs, seeded, tried
from tests.fuzz.mutation import mutate_reply, random_reply

Spoil = Callable[[Any], Any]


class SpoiledReader:
    """Answers plausibly, after `spoil` has had each reply; counts those that it changed."""

    def __init__(self, spoil: Spoil, lose: Callable[[], bool] = lambda: False) -> None:
        self._spoil = spoil
        self._lose = lose
        self.changed = 0

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        for item in requests:
            if self._lose():
                yield ReadError("connection", "this node is gone")
                continue
            replies = answer(parse(item.packed))
            spoiled = [self._spoil(reply) for reply in replies]
            self.changed += sum(new is not old for new, old in zip(spoiled, replies, strict=True))
            yield spoiled

    def close(self) -> None:
        pass


METHODS: Final[tuple[Callable[[Inspector], object], ...]] = (
    lambda inspector: inspector.queues(),
    lambda inspector: inspector.queue_info("q1"),
    lambda inspector: inspector.history("q1", 3),
    lambda inspector: inspector.tasks("q1", "pending"),
    lambda inspector: inspector.tasks("q1", "active"),
    lambda inspector: inspector.tasks("q1", "retry"),
    lambda inspector: inspector.groups("q1"),
    lambda inspector: inspector.servers(),
    lambda inspector: inspector.scheduler_entries(),
    lambda inspector: task_type_families(inspector.sample_task_types(["q1"]), 0.0),
    lambda inspector: memory_families(inspector.memory_usage(["q1"]), 0.0),
    lambda inspector: inspector.ping(),
)


# Each is an attribute's value of a metric, so there may not be any number of them.
REASONS: Final = {
    "auth", "permission", "connection", "timeout", "loading", "readonly", "out_of_memory", "wrong_type", "aborted",
    "no_replicas", "cannot_save", "busy_script",
    "moved", "cluster_down", "master_down", "not_supported", "error_reply", "protocol", "bad_value", "undecodable",
    "missing_task", "groups_capped", "no_pending_since", "negative_age", "queue_not_found",
}  # fmt: skip


def ask_all(inspector: Inspector) -> None:
    """Every method but `snapshot` returns or raises a ReadError with a known reason."""
    for ask in METHODS:
        refused = refusal(lambda ask=ask: ask(inspector))  # type: ignore[misc]
        assert refused is None or refused.reason in REASONS


def refusal(action: Callable[[], object]) -> ReadError | None:
    """The ReadError that the action ends with, if it does; any other exception passes."""
    try:
        action()
    except ReadError as error:
        return error
    return None


def checked(inspector: Inspector) -> Snapshot | None:
    """A snapshot that could be exported, or None where Redis could not be read at all."""
    snapshots: list[Snapshot] = []
    refused = refusal(lambda: snapshots.append(inspector.snapshot()))
    if refused is not None:
        assert refused.reason in REASONS
        return None
    [snapshot] = snapshots
    assert set(snapshot.failures) <= REASONS
    assert sorted(info.queue for info in snapshot.queues) == [info.queue for info in snapshot.queues]
    for info in snapshot.queues:
        info.queue.encode()
        assert info.latency is None or info.latency >= 0 or info.latency != info.latency
    snapshot_families(snapshot, convoy=True)
    return snapshot


def test_plausible_answers_are_understood_completely() -> None:
    """What the other tests start from is right: without a change there is no failure."""
    inspector = Inspector(SpoiledReader(lambda reply: reply))
    for _ in range(2):
        snapshot = checked(inspector)
        assert snapshot is not None
        assert snapshot.failures == {}
        assert len(snapshot.queues) == 3
        assert snapshot.servers
        assert snapshot.scheduler_entries
        assert snapshot.servers[0].active_workers
    for ask in METHODS:
        ask(inspector)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", [0.02, 0.3, 1.0])
def test_spoiled_replies_raise_nothing_but_read_errors(share: float) -> None:
    chance = seeded(f"replies, {share:.0%} of them spoiled")

    def spoil(reply: Any) -> Any:
        if chance.random() >= share:
            return reply
        return mutate_reply(reply, chance) if chance.random() < 0.8 else random_reply(chance)

    reader = SpoiledReader(spoil, lambda: chance.random() < share / 20)
    wanted = inputs(REPLIES) // 3
    known = unknown = 0
    while reader.changed < wanted:
        # Some collections one after another, for plans remember.
        inspector = Inspector(reader, groups_cap=chance.choice((1, 10_000)))
        for _ in range(3):
            if checked(inspector) is None:
                unknown += 1
            else:
                known += 1
        ask_all(inspector)
    tried(f"replies, {share:.0%} of them spoiled", reader.changed)
    assert unknown
    assert known or share == 1.0


scalars = st.one_of(
    st.none(),
    st.integers(-(2**63), 2**63 - 1),
    st.binary(max_size=30),
    st.integers(0, 10**11).map(lambda number: b"%d" % number),
    st.text(max_size=20).map(ErrorReply),
    st.sampled_from([b"OK", b"QUEUED", ErrorReply("WRONGTYPE x")]),
)
replies = st.recursive(scalars, lambda inner: st.lists(inner, max_size=6), max_leaves=12)


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(replies, min_size=1, max_size=12), st.randoms(use_true_random=False))
def test_replies_of_any_shape_raise_nothing_but_read_errors(found: list[Any], chance: random.Random) -> None:
    inspector = Inspector(SpoiledReader(lambda reply: chance.choice(found) if chance.random() < 0.5 else reply))
    for _ in range(2):
        checked(inspector)
    ask_all(inspector)


@settings(max_examples=100, deadline=None)
@given(replies, st.integers(0, 60))
def test_one_spoiled_reply_never_takes_a_second_queue_with_it(reply: Any, place: int) -> None:
    """Only the list of queues can take everything; what is spoiled elsewhere costs one queue or server."""
    count = -1

    def spoil(whole: Any) -> Any:
        nonlocal count
        count += 1
        return reply if count == place else whole

    inspector = Inspector(SpoiledReader(lambda whole: whole))
    whole = inspector.snapshot()
    inspector._link = SpoiledReader(spoil)
    spoiled = checked(inspector)
    if spoiled is None or len(spoiled.queues) != len(whole.queues):
        assert place == 1  # the reply to SMEMBERS asynq:queues, after the one to TIME
        return
    sizes = [info.size for info in spoiled.queues]
    assert sum(size != info.size for size, info in zip(sizes, whole.queues, strict=True)) <= 1
