"""The list of queues lies on one node of a cluster. While that one is gone the last list still holds."""

import contextlib
from collections.abc import Sequence

import pytest
import redis

from otel_queue.asynq.inspector import Inspector
from otel_queue.errors import ReadError
from otel_queue.redis_client import Answers, Request
from tests.inspector.filled import assert_filled, fill_queue


class ListGone:
    """A reader that cannot read the list of queues, for `reason`, and reads everything else."""

    def __init__(self, inspector: Inspector, reason: str) -> None:
        self._link = inspector._link
        self._reason = reason
        inspector._link = self

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        with contextlib.closing(self._link.exchange(requests, deadline)) as answers:
            for request, answer in zip(requests, answers, strict=True):
                gone = b"asynq:queues" in request.packed
                yield ReadError(self._reason, "the list is gone") if gone else answer

    def close(self) -> None:
        self._link.close()


@pytest.mark.parametrize("reason", ["connection", "timeout"])
def test_known_queues_are_read_and_the_failure_is_counted(
    inspector: Inspector, client: redis.Redis, reason: str
) -> None:
    fill_queue(client)
    inspector.snapshot()
    ListGone(inspector, reason)
    for _ in range(2):
        snapshot = inspector.snapshot()
        assert_filled(snapshot.queues[0])
        assert snapshot.failures == {reason: 1}


def test_without_an_earlier_list_nothing_is_known(inspector: Inspector, client: redis.Redis) -> None:
    fill_queue(client)
    ListGone(inspector, "connection")
    with pytest.raises(ReadError, match="the list is gone"):
        inspector.snapshot()


def test_a_list_that_is_there_and_cannot_be_read_is_no_reason_to_trust_the_last_one(
    inspector: Inspector, client: redis.Redis
) -> None:
    fill_queue(client)
    inspector.snapshot()
    ListGone(inspector, "wrong_type")
    with pytest.raises(ReadError, match="the list is gone"):
        inspector.snapshot()
