"""A Convoy, the exporters beside it, and the comparisons so far."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Final, Self

from tests.asynq_peer import AsynqPeer
from tests.convoy import expected
from tests.convoy.comparison import Compared, Exported, Number, between, compare, exported, only_known
from tests.convoy.driver import Driver
from tests.convoy.expected import Numbers
from tests.convoy.gateway import Convoy
from tests.convoy.receiver import Receiver
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.process import ServerProcess, wait_until
from tests.servers.redis import RedisServer, redis_server

# The database is read every second, and the machine may be busy.
AGE_SLACK_SECONDS: Final = 5.0
LATENCY_SLACK_SECONDS: Final = 0.5
# A follower that was killed keeps its lease for 30 s and the limit of a statement: the next one waits for its end.
SETTLE_SECONDS: Final = 60.0
# Convoy's cron job runs once a minute.
SNAPSHOT_SECONDS: Final = 180.0
MEMORY: Final = "asynq_queue_memory_usage_approx_bytes"

# The queue lane, and the domain counted in the database.
DATABASE_CONFIG: Final = """
[queue]
min_interval_seconds = 0
memory_interval_seconds = 1
[domain]
source = "postgres"
[postgres]
dsn = "{dsn}"
interval_seconds = 1
"""
FOLLOW_CONFIG: Final = """
[postgres]
dsn = "{dsn}"
statement_timeout_seconds = 10
[follow]
redis_url = "{ledger_url}"
look_seconds = 1
"""
# The ledger that the follower keeps, exported as any other.
FOLLOWED_CONFIG: Final = """
[domain]
source = "ledger"
[ledger]
url = "{ledger_url}"
namespace = "oq-db"
[follow]
namespace = "not-followed-from-here"
"""


class Lab:
    """Inside the `with`, a follower runs, and one exporter for each source of the domain metrics."""

    def __init__(self, gateway: Convoy, webhooks: Receiver, directory: Path) -> None:
        self.convoy = gateway
        self.receiver = webhooks
        self.driver = Driver(gateway, webhooks)
        self.compared: list[Compared] = []
        self.story: list[str] = []
        """Lines for whoever reads the table."""
        self.seen: set[str] = set()
        """The statuses of deliveries that were compared."""
        self._directory = directory
        self._config = directory / "follow.toml"

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self._asynq = stack.enter_context(AsynqPeer(self.convoy.redis.url))
            self._ledger: RedisServer = stack.enter_context(redis_server())
            dsn, url = self.convoy.postgres.dsn(), self.convoy.redis.url
            followed = FOLLOWED_CONFIG.format(ledger_url=self._ledger.url)
            self._config.write_text(FOLLOW_CONFIG.format(dsn=dsn, ledger_url=self._ledger.url))
            self._follower = self._new_follower()
            stack.callback(lambda: self._follower.stop())
            self._follower.start()
            self._exporter = stack.enter_context(serve(url, config=DATABASE_CONFIG.format(dsn=dsn)))
            self._domain: dict[str, ServeProcess] = {
                _DATABASE: self._exporter,
                _FOLLOWER: stack.enter_context(serve(url, config=followed)),
            }
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def _new_follower(self) -> ServerProcess:
        return ServerProcess(
            "follower",
            [*_FOLLOW, "--config", str(self._config)],
            is_ready=lambda: True,
            directory=self._directory,
        )

    def kill_follower(self) -> None:
        self._follower.kill()

    def start_follower(self) -> None:
        self._follower.start()

    def sweep(self) -> str:
        """Ends the follower, and runs one look and one sweep: what they set right."""
        self._follower.stop()
        command = [*_FOLLOW, "--once", "--json", "--config", str(self._config)]

        def swept() -> str:
            # The lease of the follower that ended has to run out.
            done = subprocess.run(command, capture_output=True, text=True, timeout=120)
            return done.stdout if done.returncode == 0 else ""

        told = json.loads(wait_until(swept, within=90, what="`follow --once` sweeps"))
        return f"`follow --once`: looked {told['looked']}, swept {told['swept']}, set right {told['set_right']}"

    def compare(self, moment: str, *, is_moving: bool = False) -> None:
        """The queue lane with Asynq's inspector and, unless rows change all the time, the domain with them."""
        self.compared += [self._queues(moment), self._memory(moment)]
        if not is_moving:
            for name, exporter in self._domain.items():
                self.compared.append(self._rows(moment, name, exporter))

    def _queues(self, moment: str) -> Compared:
        known, ours = self._read_queues()
        known.pop(MEMORY, None)
        return compare(moment, _ASYNQ, ours, known)

    def _memory(self, moment: str) -> Compared:
        """Memory is sampled at a pace of its own."""

        def read() -> Compared:
            known, ours = self._read_queues()
            return compare(moment, _ASYNQ, ours, {MEMORY: known.get(MEMORY, {})})

        return _settled(read)

    def _read_queues(self) -> tuple[Numbers, Exported]:
        """What is known, and what is exported, of all that stood still meanwhile."""
        before = expected.asynq_numbers(self._asynq)
        scraped = self._exporter.scrape().text
        known = between(before, expected.asynq_numbers(self._asynq), LATENCY_SLACK_SECONDS)
        return known, only_known(exported(scraped, known), known)

    def _rows(self, moment: str, name: str, exporter: ServeProcess) -> Compared:
        def read() -> Compared:
            ours = exported(exporter.scrape().text, expected.DOMAIN)
            known = expected.row_numbers(self.convoy.postgres, AGE_SLACK_SECONDS)
            self.seen.update(
                status for labels in known[expected.DELIVERIES] for key, status in labels if key == "status"
            )
            return compare(moment, name, ours, known)

        return _settled(read)

    def change_behind_the_follower(self) -> None:
        """Changes a final status by hand. Looks miss that until the next sweep, so the comparison must find it."""
        self.convoy.postgres.execute(
            "UPDATE convoy.event_deliveries SET status = 'Failure'"
            " WHERE id = (SELECT min(id) FROM convoy.event_deliveries WHERE status = 'Success')"
        )
        found = self._rows("changed by hand", _FOLLOWER, self._domain[_FOLLOWER])
        explained = [each._replace(cause="a final row changed by hand, before a sweep") for each in found.differences]
        assert {each.metric for each in explained} == {expected.DELIVERIES}, found.differences
        assert len(explained) == 2, found.differences
        self.compared.append(replace(found, differences=explained))

    def compare_with_snapshots(self, moment: str) -> None:
        """With Convoy's own counts, once it has made them again."""
        since = time.time()
        wait_until(
            lambda: expected.snapshot_time(self.convoy.postgres) > since,
            within=SNAPSHOT_SECONDS,
            what="Convoy refreshes its snapshot tables",
        )
        known = expected.snapshot_numbers(self.convoy.postgres)
        for name, exporter in self._domain.items():
            ours = exported(exporter.scrape().text, expected.DOMAIN)
            against = name.replace("rows", "snapshots")
            self.compared.append(compare(moment, against, ours, known, known_difference))


_ASYNQ: Final = "Asynq's inspector"
_DATABASE: Final = "database source and rows"
_FOLLOWER: Final = "follower and rows"
_FOLLOW: Final = (str(Path(sys.executable).parent / "otel-queue"), "follow")


def _settled(read: Callable[[], Compared]) -> Compared:
    """The first reading without a difference, or the last one within the time that is given."""
    deadline = time.monotonic() + SETTLE_SECONDS
    while True:
        found = read()
        if not found.differences or time.monotonic() > deadline:
            return found
        time.sleep(0.5)


def known_difference(metric: str, ours: float | None, theirs: Number) -> str:
    """Why our number is not the one in Convoy's snapshot tables; empty where nobody knows."""
    if metric in (expected.EVENT_BACKLOG, expected.DELIVERY_BACKLOG):
        if ours == 0 and theirs is None:
            return "a known group without a delivery in Processing is 0"
        if ours and isinstance(theirs, float) and theirs and abs(ours - theirs) < SNAPSHOT_SECONDS:
            return "Convoy's age stands still until its next refresh"
    return ""
