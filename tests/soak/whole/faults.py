"""The faults of the whole run: each breaks something, holds it, mends it, and returns when it is mended."""

import random
import resource
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import redis

from tests.servers.collector import CollectorServer
from tests.servers.otel_queue import ServeProcess
from tests.servers.postgres import PostgresServer
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer
from tests.servers.redis_sentinel import MASTER_NAME, Sentinels
from tests.soak.whole.load import LaneProcess
from tests.soak.whole.watch import Watcher

SKEW_SECONDS: Final = 3.0
HOLD_SECONDS: Final = 4.0
SLOW_SECONDS: Final = 0.15  # each way
DISK_BYTES: Final = 65_536
MEND_SECONDS: Final = 90.0


@dataclass
class Scene:
    """What can be broken."""

    ledger: RedisServer
    queues: Sentinels
    tell_proxy: Callable[[str], None]
    workers: Sequence[LaneProcess]
    served: ServeProcess
    watcher: Watcher
    sink: CollectorServer
    database: PostgresServer
    chance: random.Random
    say: Callable[[str], None]
    survived: Counter[str] = field(default_factory=Counter)
    _clock: float = SKEW_SECONDS

    def faults(self) -> dict[str, Callable[[], None]]:
        """By kind, in the order of a round."""
        return {
            "worker killed (committed)": partial(self.kill_worker, True),
            "worker killed (buffered)": partial(self.kill_worker, False),
            "ledger's Redis killed, workers too": self.kill_ledger_and_workers,
            "ledger's Redis killed": self.kill_ledger,
            "queues' master killed, failover": self.kill_master,
            "ledger's Redis stopped": self.stop_ledger,
            "network cut": self.cut,
            "network slow": self.slow,
            "network mute": self.mute,
            "ledger's memory full": self.fill_memory,
            "ledger's disk full": self.fill_disk,
            "worker's clock 3 s off": self.skew_worker,
            "queues' master stopped, failover": self.stop_master,
            "exporter killed": self.kill_served,
            "Collector killed": self.kill_sink,
            "database killed": self.kill_database,
        }

    def hold(self, seconds: float = HOLD_SECONDS) -> None:
        """It stays broken for a while."""
        threading.Event().wait(seconds)

    def kill_worker(self, is_exact: bool) -> None:
        worker = self.chance.choice(self._mortal(is_exact))
        worker.kill()
        self.hold(1.0)
        worker.start()

    def kill_ledger_and_workers(self) -> None:
        """They die with all in hand that they could not write."""
        mortal = [each for each in self.workers if not each.lane.is_long_lived]
        self.ledger.kill()
        self.hold()
        for worker in mortal:
            worker.kill()
        self.ledger.start()
        for worker in mortal:
            worker.start()

    def skew_worker(self) -> None:
        """Those that write before they acknowledge: one is replaced by one whose clock is ahead, then behind."""
        worker = self.chance.choice(self._mortal(is_exact=True))
        worker.kill()
        worker.start(self._clock)
        self._clock = -self._clock

    def _mortal(self, is_exact: bool) -> list[LaneProcess]:
        return [each for each in self.workers if each.lane.is_exact == is_exact and not each.lane.is_long_lived]

    def kill_ledger(self) -> None:
        self.ledger.kill()
        self.hold()
        self.ledger.start()

    def stop_ledger(self) -> None:
        self.ledger.pause()
        try:
            self.hold()
        finally:
            self.ledger.resume()

    def cut(self) -> None:
        self.tell_proxy("gone")
        self.hold()
        self.tell_proxy("back")

    def mute(self) -> None:
        self.tell_proxy("mute")
        self.hold()
        self.tell_proxy("back")

    def slow(self) -> None:
        self.tell_proxy(f"delay {SLOW_SECONDS}")
        self.hold(2 * HOLD_SECONDS)
        self.tell_proxy("delay 0.002")

    def fill_memory(self) -> None:
        """Redis refuses what takes memory, since it may not evict."""
        with self.ledger.client() as client:
            client.config_set("maxmemory", client.info("memory")["used_memory"] // 2)
            self.hold()
            client.config_set("maxmemory", 0)

    def fill_disk(self) -> None:
        """The append-only file may not grow: Redis ends itself, or is ended, in the middle of a write."""
        with self.ledger.client() as client:
            directory = Path(str(client.config_get("dir")["dir"]))
        full: list[Path] = []

        def has_ended() -> bool:
            log = max(directory.glob("appendonlydir/*.incr.aof"), key=lambda path: path.stat().st_mtime)
            if self.ledger.process.is_running and full != [log]:
                # The first time, and when a rewrite of the file has begun another one meanwhile.
                full[:] = [log]
                most = log.stat().st_size + DISK_BYTES
                resource.prlimit(self.ledger.pid, resource.RLIMIT_FSIZE, (most, resource.RLIM_INFINITY))
            return not self.ledger.process.is_running

        wait_until(has_ended, within=MEND_SECONDS, what="the ledger's Redis has ended")
        self.say(f"  exit code {self.ledger.process.exit_code}")
        self.hold(1.0)
        self.ledger.start()

    def kill_master(self) -> None:
        self.queues.failover()
        self.queues.master.start()
        self._settle()

    def stop_master(self) -> None:
        """As long as it takes until the other leads; then it comes back and believes that it still does."""
        self.queues.master.pause()
        try:
            wait_until(lambda: self._leader() is self.queues.replica, within=MEND_SECONDS, what="the replica leads")
        finally:
            self.queues.master.resume()
        self._settle()

    def _settle(self) -> None:
        """One leads and the other follows it. Mostly they change places, but Sentinels may change their mind."""
        pair = (self.queues.master, self.queues.replica)

        def is_settled() -> bool:
            leader = self._leader()
            if leader is None:
                return False
            self.queues.master, self.queues.replica = leader, next(each for each in pair if each is not leader)
            with self.queues.replica.client() as client:
                info = client.info("replication")
            return bool(info.get("master_port") == leader.port and info["master_link_status"] == "up")

        wait_until(is_settled, within=MEND_SECONDS, what="one of the pair leads and the other follows it")

    def _leader(self) -> RedisServer | None:
        """Of the pair, if all Sentinels name the same."""
        named = set()
        for sentinel in self.queues.sentinels:
            with sentinel.client() as client:
                named.add(int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1]))
        pair = (self.queues.master, self.queues.replica)
        return next((each for each in pair if named == {each.port}), None)

    def kill_served(self) -> None:
        self.watcher.is_down.set()
        self.served.process.kill()
        self.hold(1.0)
        self.served.process.start()
        self.watcher.is_down.clear()

    def kill_sink(self) -> None:
        self.sink.process.kill()
        self.hold()
        self.sink.process.start()

    def kill_database(self) -> None:
        self.database.kill()
        self.hold()
        self.database.start()


def break_things(scene: Scene, until: float, pause_seconds: float) -> list[str]:
    """One fault after the other, each kind in turn, until a moment (time.monotonic); what was not survived."""
    bad: list[str] = []
    kinds: list[str] = []
    due = time.monotonic() + pause_seconds
    while due < until:
        if not kinds:
            kinds = list(scene.faults())
            scene.chance.shuffle(kinds)
        kind = kinds.pop()
        threading.Event().wait(max(0.0, due - time.monotonic()))
        began = time.monotonic()
        try:
            scene.faults()[kind]()
        except (AssertionError, OSError, redis.RedisError) as error:
            bad.append(f"{kind}: {error}")
            scene.say(f"  not mended: {error}")
        else:
            scene.survived[kind] += 1
        scene.say(f"{time.strftime('%H:%M:%S')} {kind}, mended after {time.monotonic() - began:.1f} s")
        due = max(due + pause_seconds, time.monotonic() + pause_seconds / 4)
    return bad
