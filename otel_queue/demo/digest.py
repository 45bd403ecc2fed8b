"""The one queue of the demo that is not Convoy's: it shows what Convoy does not use.

Failure notices join one group per project and are merged into a digest, which stays completed for a while.
Probes of failing endpoints are unique, delayed, and archived when the endpoint stays down.
"""

import json
from collections.abc import Sequence
from random import Random
from typing import Final

from otel_queue.asynq.message import TaskMessage
from otel_queue.demo.agent import Run, TaskFailedError
from otel_queue.demo.aggregator import Aggregator
from otel_queue.demo.broker import Broker
from otel_queue.demo.identity import uuid
from otel_queue.demo.tenants import Delivery, Endpoint

DIGEST_QUEUE: Final = "DigestQueue"
NOTICE: Final = "digest:notice"
SEND: Final = "digest:send"
PROBE: Final = "digest:probe"
SWEEP: Final = "digest:sweep"
_RETENTION_SECONDS: Final = 300
_PROBE_UNIQUE_SECONDS: Final = 30
_PROBE_DELAY_SECONDS: Final = 2


class Digest:
    """Producer and handler of the digest queue."""

    def __init__(self, broker: Broker, rng: Random, endpoints: Sequence[Endpoint]) -> None:
        self._broker = broker
        self._rng = rng
        self._endpoints = {endpoint.id: endpoint for endpoint in endpoints}
        self.aggregator = Aggregator(
            broker=broker,
            queue=DIGEST_QUEUE,
            merge=self._merge,
            new_id=lambda: uuid(rng),
            grace_seconds=10,
            max_delay_seconds=30,
            max_size=20,
        )

    def notice(self, delivery: Delivery) -> None:
        """A delivery was given up: its project's next digest will say so."""
        self._enqueue(NOTICE, {"delivery": delivery.id}, group=delivery.project_id)

    def probe(self, endpoint: Endpoint) -> None:
        """An attempt failed: see soon whether the endpoint is back, unless that is about to happen anyway."""
        task = TaskMessage(
            PROBE, json.dumps({"endpoint": endpoint.id}).encode(), uuid(self._rng), DIGEST_QUEUE, retry=1
        )
        self._broker.enqueue(
            task,
            process_at=self._broker.clock() + _PROBE_DELAY_SECONDS,
            unique_seconds=_PROBE_UNIQUE_SECONDS,
        )

    def start(self, task: TaskMessage) -> Run:
        """Work on a task of this queue."""
        if task.type == PROBE:
            return Run(self._rng.uniform(0.1, 0.5), lambda: self._probe(task))
        if task.type == SWEEP:
            return Run(0.1, lambda: self._broker.delete_archived(DIGEST_QUEUE))
        return Run(self._rng.uniform(0.2, 1.0), lambda: None)

    def _probe(self, task: TaskMessage) -> None:
        endpoint = self._endpoints.get(json.loads(task.payload)["endpoint"])
        if endpoint is not None and not endpoint.respond(self._broker.clock(), self._rng):
            raise TaskFailedError(f"probe of {endpoint.url} failed", retry_seconds=5)

    def _merge(self, group: str, tasks: Sequence[TaskMessage]) -> TaskMessage:
        payload = json.dumps({"project": group, "notices": len(tasks)}).encode()
        return TaskMessage(SEND, payload, uuid(self._rng), DIGEST_QUEUE, retention=_RETENTION_SECONDS)

    def _enqueue(self, task_type: str, fields: dict[str, str], group: str) -> None:
        payload = json.dumps(fields).encode()
        self._broker.enqueue(TaskMessage(task_type, payload, uuid(self._rng), DIGEST_QUEUE, group_key=group))
