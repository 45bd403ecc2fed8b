"""A real Convoy, driven and killed: each number that otel-queue shows of it is what Asynq and the rows say."""

import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.asynq_peer import AsynqPeer
from tests.convoy import words
from tests.convoy.comparison import Compared, Number, between, compare, exported, only_known, table
from tests.convoy.driver import Driver
from tests.convoy.gateway import Convoy, convoy
from tests.convoy.program import build_convoy, convoy_source
from tests.convoy.receiver import Receiver, receiver
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.process import wait_until

# The exporter reads the database every second, and the machine may be busy.
AGE_SLACK_SECONDS: Final = 5.0
LATENCY_SLACK_SECONDS: Final = 0.5
SETTLE_SECONDS: Final = 30.0
# Convoy's cron job runs once a minute.
SNAPSHOT_SECONDS: Final = 180.0

CONFIG: Final = """
[queue]
min_interval_seconds = 0
memory_interval_seconds = 0.001
[domain]
source = "postgres"
[postgres]
dsn = "{dsn}"
interval_seconds = 1
"""


class Lab:
    """A Convoy with its driver, one exporter beside it, and what was compared so far."""

    def __init__(self, gateway: Convoy, webhooks: Receiver, exporter: ServeProcess, asynq: AsynqPeer) -> None:
        self.convoy = gateway
        self.receiver = webhooks
        self.driver = Driver(gateway, webhooks)
        self.compared: list[Compared] = []
        self._exporter = exporter
        self._asynq = asynq

    def compare(self, moment: str) -> None:
        """Queue lane with Asynq's inspector, domain with the rows."""
        self.compared.append(self._queue(moment))
        self.compared.append(self._domain(moment))

    def _queue(self, moment: str) -> Compared:
        """One reading between two of Asynq's; memory, which is sampled apart, is given the time of some samples."""
        known, ours = self._queues()
        found = compare(moment, ASYNQ, _without_memory(ours), _without_memory(known))
        return found.with_(self._settled(moment, ASYNQ, lambda: tuple(map(_memory, self._queues()))))

    def _queues(self) -> tuple[Word, Word]:
        """What is known and what is exported of all that stood still meanwhile."""
        before = words.queue_word(self._asynq)
        scraped = self._exporter.scrape().text
        known = between(before, words.queue_word(self._asynq), LATENCY_SLACK_SECONDS)
        return known, only_known(exported(scraped, known), known)

    def _domain(self, moment: str) -> Compared:
        """The exporter reads at its own pace: what differs still after a while is a difference."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while True:
            ours = exported(self._exporter.scrape().text, words.DOMAIN)
            known = words.row_word(self.convoy.postgres, AGE_SLACK_SECONDS)
            found = compare(moment, "rows", ours, known)
            if not found.differences or time.monotonic() > deadline:
                return found
            time.sleep(0.5)

    def compare_with_snapshots(self, moment: str) -> None:
        """With Convoy's own counts, once it has made them again."""
        since = time.time()
        wait_until(
            lambda: words.snapshot_time(self.convoy.postgres) > since,
            within=SNAPSHOT_SECONDS,
            what="Convoy refreshes its snapshot tables",
        )
        ours = exported(self._exporter.scrape().text, words.DOMAIN)
        known = words.snapshot_word(self.convoy.postgres)
        self.compared.append(compare(moment, "Convoy's snapshot tables", ours, known, known_difference))


def known_difference(metric: str, ours: float | None, theirs: Number) -> str:
    """Why our number is not Convoy's."""
    if metric in (words.EVENT_BACKLOG, words.DELIVERY_BACKLOG):
        if ours == 0 and theirs is None:
            return "a known group without a delivery in Processing is 0"
        if ours and isinstance(theirs, float) and theirs and abs(ours - theirs) < SNAPSHOT_SECONDS:
            return "Convoy's age stands still until its next refresh"
    return ""


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    source = convoy_source()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oq-")))
        program = build_convoy(source, directory)
        webhooks = stack.enter_context(receiver())
        gateway = stack.enter_context(convoy(program, directory))
        exporter = stack.enter_context(
            serve(gateway.redis.url, config=CONFIG.format(dsn=gateway.postgres.dsn()))
        )
        asynq = stack.enter_context(AsynqPeer(gateway.redis.url))
        yield Lab(gateway, webhooks, exporter, asynq)


@pytest.mark.timeout(1_500)
def test_every_number_of_a_real_convoy_is_what_asynq_and_its_rows_say(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        _drive(lab)
    finally:
        unexplained = [f"{each.moment}: {difference}" for each in lab.compared for difference in each.unexplained]
        with capsys.disabled():
            sys.stdout.write(f"\n{table(lab.compared)}\n{chr(10).join(unexplained[:100])}\n")
    assert not unexplained, "\n".join(unexplained[:100])


def _drive(lab: Lab) -> None:
    driver = lab.driver
    lab.compare("nothing yet")
    driver.prepare()
    lab.compare("projects, endpoints and a source")

    driver.every_kind(2)
    lab.compare("events of every kind on their way")
    driver.rest()
    lab.compare("events of every kind delivered or failed")

    driver.pause("paused")
    driver.deactivate("inactive")
    driver.every_kind(2)
    driver.rest()
    lab.compare("one endpoint paused, one inactive")

    for number in (signal.SIGTERM, signal.SIGKILL):
        driver.single("late", 20)
        driver.every_kind(2)
        driver.wait_for_attempts(15)
        driver.stop_agent(number)
        lab.compare(f"agent ended by {number.name} at work")
        driver.single("ok", 3)
        driver.ingest(2)
        lab.compare(f"accepted without an agent, after {number.name}")
        lab.convoy.agent.start()
        driver.rest()
        lab.compare(f"agent back after {number.name}")

    assert driver.resend(6)
    driver.force_resend(6)
    driver.rest()
    lab.compare("resent, and resent by force")
    lab.receiver.healed.set()
    driver.batch_retry("broken")
    driver.rest()
    lab.compare("failures of one endpoint retried as a batch")

    driver.pause("paused")
    driver.activate("inactive")
    driver.rename("Renamed")
    driver.delete("gone")
    driver.every_kind(1)
    driver.rest()
    lab.compare("renamed, activated, one endpoint deleted")
    lab.compare_with_snapshots("at rest")
