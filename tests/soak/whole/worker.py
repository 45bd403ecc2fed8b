"""A worker of the whole run, which may be killed: it works on its queue until its input ends.

    python -m tests.soak.whole.worker LANE QUEUES_URL LEDGER_URL SEED SKEW_SECONDS

`done N`: the records of task N are in the ledger. `queued N`: its handler has returned and they may not be. `flushed`:
all that were queued before are written. `again N`: it fails and will run again. Its clock is SKEW_SECONDS ahead.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Callable
from typing import Final

import redis
from redis.sentinel import Sentinel

from otel_queue import Task, Worker, WriteError, committed, compose, ledger_writer, recorded
from otel_queue.config import Config, load_config
from otel_queue.config.redis_url import parse_redis_url
from otel_queue.demo.broker import Broker
from tests.servers.redis_sentinel import MASTER_NAME
from tests.soak.whole.tasks import LANES, Lane, Told

IDLE_SECONDS: Final = 0.02
UPKEEP_SECONDS: Final = 1.0
PAUSE_SECONDS: Final = 0.2
# Longer than a clock is off, so that what is told again is not told earlier.
RETRY_SECONDS: Final = 6.0
REDIS_SECONDS: Final = 2.0
END_SECONDS: Final = 60.0
COMMIT_SECONDS: Final = 5.0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def turn_clock(seconds: float) -> None:
    """From now on this process's clock is that far ahead."""
    right, right_ns = time.time, time.time_ns
    time.time = lambda: right() + seconds
    time.time_ns = lambda: right_ns() + int(seconds * 1e9)


def sentinel_client(url: str) -> "redis.Redis":
    """Connected to whom the Sentinels call the master, asked for each connection."""
    sentinel = Sentinel(list(parse_redis_url(url).nodes), socket_timeout=REDIS_SECONDS)
    return sentinel.master_for(MASTER_NAME, socket_timeout=REDIS_SECONDS)  # type: ignore[no-any-return]


class Handling:
    """The queue's tasks, one after the other."""

    def __init__(self, lane: Lane, config: Config, client: "redis.Redis", seed: int) -> None:
        self._lane = lane
        self._seed = seed
        self._broker = Broker(client, time.time)
        # As docs/reliability.md has it for the promise.
        self._writer = ledger_writer(
            config, waits=lane.is_exact, write_timeout_seconds=COMMIT_SECONDS, breaker_seconds=0.0
        )
        self.worker = Worker(config, ledger=lambda: self._writer)
        recorder = self.worker.recorder
        kept = [committed(recorder)] if lane.is_exact else []
        self._handle = compose(recorded(recorder), *kept)(self._deliver)
        self._queued = False

    def step(self) -> bool:
        """One task, if there is one."""
        message = self._broker.dequeue(self._lane.queue)
        if message is None:
            return False
        task = Task(message.type, message.payload, message.queue, dict(message.headers), message.id, message.retried)
        try:
            self._handle(task)
        except WriteError as error:
            self._broker.fail(message, time.time() + RETRY_SECONDS, str(error))
            say(f"again {message.id}")
            return True
        if not self._lane.is_exact:
            # Said before it is finished: a task that is lost in between would be nobody's.
            say(f"queued {message.id}")
            self._queued = True
        self._broker.finish(message)
        if self._lane.is_exact:
            say(f"done {message.id}")
        return True

    def _deliver(self, task: Task) -> None:
        told = Told(self._seed, int(task.id), int(task.payload))
        for name, arguments in told.calls:
            method: Callable[..., str] = getattr(self.worker.recorder, name)
            assert method(**arguments) in ("grouped", "queued"), f"{name}{arguments}"

    def say_what_is_flushed(self) -> None:
        if self._queued and len(self._writer) == 0:
            self._queued = False
            say("flushed")

    def keep_up(self) -> None:
        """What a server does beside: tasks that are due, and those of one that died."""
        self._broker.forward([self._lane.queue])
        self._broker.recover([self._lane.queue], RETRY_SECONDS)

    def reconnect(self) -> None:
        self._broker.forget_registered()


def work(handling: Handling, end: threading.Event) -> None:
    next_upkeep = 0.0
    while not end.is_set():
        pause = 0.0
        try:
            if time.monotonic() >= next_upkeep:
                next_upkeep = time.monotonic() + UPKEEP_SECONDS
                handling.keep_up()
            if not handling.step():
                pause = IDLE_SECONDS
        except redis.RedisError:
            handling.reconnect()
            pause = PAUSE_SECONDS
        handling.say_what_is_flushed()
        if pause:
            end.wait(pause)


def main(lane_name: str, queues: str, ledger: str, seed: str, skew_seconds: str) -> None:
    turn_clock(float(skew_seconds))
    lane = next(lane for lane in LANES if lane.name == lane_name)
    config = load_config({"redis.url": queues, "ledger.url": ledger})
    handling = Handling(lane, config, sentinel_client(queues), int(seed))
    end = threading.Event()
    working = threading.Thread(target=work, args=(handling, end))
    working.start()
    with contextlib.suppress(KeyboardInterrupt):
        sys.stdin.read()
    end.set()
    working.join()
    if handling.worker.shutdown(END_SECONDS):
        say("flushed")


if __name__ == "__main__":
    main(*sys.argv[1:])
