"""The demo's whole world: customers who send, servers that work, things that break, on one clock."""

import logging
import math
import threading
import time
from random import Random
from typing import Final

from redis import Redis
from redis.exceptions import RedisError

from otel_queue.demo import payloads
from otel_queue.demo.agent import Agent
from otel_queue.demo.broker import Broker, Client, Clock
from otel_queue.demo.convoy import Convoy
from otel_queue.demo.digest import DIGEST_QUEUE, SWEEP, Digest
from otel_queue.demo.heartbeat import purge_dead
from otel_queue.demo.hooks import Hooks
from otel_queue.demo.interval import Interval
from otel_queue.demo.scheduler import Periodic, Scheduler
from otel_queue.demo.tenants import found_projects
from otel_queue.recorder import Recorder

_log: Final = logging.getLogger(__name__)

AGENT_QUEUES: Final = {
    payloads.EVENT_QUEUE: 4,
    payloads.CREATE_EVENT_QUEUE: 4,
    payloads.EVENT_WORKFLOW_QUEUE: 3,
    payloads.RETRY_EVENT_QUEUE: 1,
    payloads.SCHEDULE_QUEUE: 1,
    payloads.DEFAULT_QUEUE: 1,
    payloads.META_EVENT_QUEUE: 1,
    payloads.BATCH_RETRY_QUEUE: 1,
}
QUEUES: Final = (*AGENT_QUEUES, DIGEST_QUEUE)
_PERIODIC: Final = (
    Periodic("58 23 * * *", payloads.DELETE_ARCHIVED, payloads.SCHEDULE_QUEUE),
    Periodic("0 1 * * *", "RetentionPolicies", payloads.SCHEDULE_QUEUE),
    Periodic("15 2 * * *", "SnapshotUsage", payloads.SCHEDULE_QUEUE),
    Periodic("* * * * *", "RefreshEventDeliveryDailyCounts", payloads.SCHEDULE_QUEUE),
    Periodic("* * * * *", "RefreshQueueMetricsSnapshot", payloads.SCHEDULE_QUEUE),
    Periodic("@every 600s", SWEEP, DIGEST_QUEUE),
)
_TICK_SECONDS: Final = 0.2
_REDIS_TIMEOUT_SECONDS: Final = 3.0
_FORWARD_SECONDS: Final = 1.0
_AGGREGATE_SECONDS: Final = 2.0
_RECLAIM_SECONDS: Final = 60.0
_BATCH_RETRY_SECONDS: Final = 120.0
_FIRST_BATCH_RETRY_SECONDS: Final = 45.0
# Nothing arrives while more than this waits, nor more than this in one step: a slow machine, or one that
# slept, must not fill Redis.
_MAX_PENDING: Final = 5_000
_MAX_ARRIVALS: Final = 500


class _Trouble:
    """Something that is wrong for a while, now and then; the first time soon, for short demos."""

    def __init__(self, rng: Random, now: float, first: float, lasts: float, every: float) -> None:
        self._rng = rng
        self._lasts = lasts
        self._every = every
        self._begins = now + first
        self._ends = math.inf

    def begins(self, now: float) -> bool:
        """Whether it is time for it to begin."""
        return self._ends == math.inf and now >= self._begins

    def begin(self, now: float) -> None:
        """It has begun."""
        self._ends = now + self._lasts

    def ends(self, now: float) -> bool:
        """Whether it is over now; if so, the next time is drawn."""
        if now < self._ends:
            return False
        self._begins = now + self._rng.expovariate(1 / self._every)
        self._ends = math.inf
        return True


class Workload:
    """Writes true asynq tasks into a Redis, as a Convoy installation of modest size would.

    `rate` is events a second. With the same seed and the same clock readings it does the same. `redis` is a
    URL or a client that does not decode responses; give it a Redis of its own, since it takes every task that
    waits in Convoy's queues. What it keeps there stays bounded however long it runs. `recorder` is told what a
    Convoy would tell it.
    """

    def __init__(
        self,
        redis: str | Client,
        *,
        rate: float = 5.0,
        seed: int = 1,
        clock: Clock = time.time,
        recorder: Recorder | None = None,
    ) -> None:
        if not rate > 0:
            raise ValueError(f"rate is {rate}; expected more than 0 events a second")
        self._client = Redis.from_url(redis, socket_timeout=_REDIS_TIMEOUT_SECONDS) if isinstance(redis, str) else redis
        self._owns_client = isinstance(redis, str)
        self._rate = rate
        self._rng = Random(seed)
        self._clock = clock
        self._now = 0.0
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._broker = Broker(self._client, lambda: self._now)
        projects = found_projects(self._rng)
        endpoints = [endpoint for project in projects for endpoint in project.endpoints]
        self._digest = Digest(self._broker, self._rng, endpoints)
        self._projects = projects
        self._hooks = Hooks(recorder, lambda: self._now, Random(seed))
        self._convoy = Convoy(self._broker, self._rng, projects, self._digest, self._hooks)
        concurrency = max(10, math.ceil(4 * rate))
        self._fragile = self._agent("convoy-agent-1", concurrency)
        self._agents = (
            self._agent("convoy-agent-0", concurrency),
            self._fragile,
            Agent(self._broker, self._digest, self._rng, "digest-0", {DIGEST_QUEUE: 1}, 2),
        )
        self._scheduler: Scheduler | None = None
        self._forward = Interval(_FORWARD_SECONDS)
        self._aggregate = Interval(_AGGREGATE_SECONDS)
        self._reclaim = Interval(_RECLAIM_SECONDS)
        self._batch_retry = Interval(_BATCH_RETRY_SECONDS)

    def _agent(self, host: str, concurrency: int) -> Agent:
        return Agent(self._broker, self._convoy, self._rng, host, AGENT_QUEUES, concurrency)

    # In real time

    def start(self) -> None:
        """Step in a background thread, five times a second, until `stop`; a lost Redis is waited for."""
        self._thread = threading.Thread(target=self._run, name="otel-queue-demo", daemon=True)
        self._thread.start()

    def stop(self, timeout: float = 5.0) -> None:
        """Stop the thread and shut every simulated server down; tasks stay where they are."""
        self._stopping.set()
        if self._thread is not None:
            self._thread.join(timeout)
            if self._thread.is_alive():
                _log.warning("the demo workload did not stop within %g s", timeout)
                return
        try:
            self._shut_down()
        except RedisError as error:
            _log.warning("the demo workload could not clean up after itself: %s", error)
        if self._owns_client:
            self._client.close()

    def _run(self) -> None:
        reachable = True
        while not self._stopping.wait(_TICK_SECONDS if reachable else 1.0):
            try:
                self.step()
            except RedisError as error:
                if reachable:
                    _log.warning("the demo workload waits for its Redis: %s", error)
                reachable = False
                self._broker.forget_registered()
            else:
                reachable = True

    # In steps

    def step(self, now: float | None = None) -> None:
        """Do everything that is due at `now` (Unix seconds, by default the clock's)."""
        self._now = self._clock() if now is None else now
        if self._scheduler is None:
            self._begin()
        for agent in self._agents:
            agent.beat()
        pending = self._broker.pending(QUEUES)
        self._receive(sum(pending.values()))
        if self._scheduler is not None:
            self._scheduler.step()
        self._cause_trouble()
        if self._forward.is_due(self._now):
            self._broker.forward(QUEUES)
        if self._aggregate.is_due(self._now):
            self._digest.aggregator.step()
        if self._reclaim.is_due(self._now):
            self._digest.aggregator.reclaim()
            purge_dead(self._broker)
        if self._batch_retry.is_due(self._now):
            self._convoy.retry_failed()
        pending = self._broker.pending(QUEUES)
        for agent in self._rng.sample(self._agents, len(self._agents)):
            agent.step(pending)

    def _begin(self) -> None:
        for project in self._projects:
            self._hooks.described(project)
        self._next_arrival = self._now
        self._death = _Trouble(self._rng, self._now, first=12, lasts=75, every=300)
        self._pause = _Trouble(self._rng, self._now, first=20, lasts=20, every=150)
        self._batch_retry.wait(self._now, _FIRST_BATCH_RETRY_SECONDS)
        self._reclaim.wait(self._now, _RECLAIM_SECONDS)
        for agent in self._agents:
            agent.start()
        self._scheduler = Scheduler(self._broker, self._rng, "convoy-server-0", _PERIODIC)

    def _receive(self, waiting: int) -> None:
        if waiting > _MAX_PENDING:
            self._next_arrival = self._now
            return
        for _ in range(_MAX_ARRIVALS):
            if self._next_arrival > self._now:
                return
            self._convoy.accept_event()
            self._next_arrival += self._rng.expovariate(self._rate)
        self._next_arrival = self._now

    def _cause_trouble(self) -> None:
        if self._pause.begins(self._now):
            self._broker.pause(payloads.META_EVENT_QUEUE)
            self._pause.begin(self._now)
        elif self._pause.ends(self._now):
            self._broker.unpause(payloads.META_EVENT_QUEUE)
        # A server that dies idle would leave nothing behind to see.
        if self._death.begins(self._now) and self._fragile.busy:
            self._fragile.die()
            self._death.begin(self._now)
        elif self._death.ends(self._now):
            self._fragile.start()

    def _shut_down(self) -> None:
        for agent in self._agents:
            agent.shut_down()
        if self._scheduler is not None:
            self._scheduler.shut_down()
            self._broker.unpause(payloads.META_EVENT_QUEUE)
