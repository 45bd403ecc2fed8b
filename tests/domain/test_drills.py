"""A ledger that fails, as its operator meets it: what is exported, what says so, and which commands mend it."""

import contextlib
import os
from collections.abc import Iterator
from typing import Any

import pytest

from otel_queue.cli import FINDING, FINE
from otel_queue.lifecycle import StatusSet
from tests.ledger.ledgers import Ledger
from tests.operations.alert_drills import otel_queue
from tests.postgres.gateway import DELIVERIES, EVENTS, Gateway
from tests.seeding.scene import DAY, DAY_BEFORE, LAST, NOON_US, PER_DAY, fill_days
from tests.servers.otel_queue import Scrape, ServeProcess, serve
from tests.servers.redis import RedisServer

CONFIG = """
[queue]
min_interval_seconds = 0.1
memory_interval_seconds = 0

[domain]
source = "ledger"
fallback = "postgres"
shadow = "postgres"
fallback_after_seconds = 0.5
return_after_seconds = 0.5

[ledger]
max_staleness_seconds = 1

[postgres]
interval_seconds = 1
"""
ALL_EVENTS = 3 * PER_DAY + 1
SUCCEEDED = 3 * (PER_DAY - 2) + 1
WRONG = 3


class Installation:
    """A gateway's database and a ledger in step with it; `run` is the operator's command line."""

    def __init__(self, gateway: Gateway, server: RedisServer) -> None:
        self.gateway, self.server = gateway, server
        self.environment = {
            "OTEL_QUEUE_POSTGRES_DSN": gateway.dsn.reveal(),
            "OTEL_QUEUE_REDIS_URL": server.url,
            "PATH": os.environ["PATH"],
        }

    def run(self, command: str, expected: int = FINE) -> str:
        """What `otel-queue COMMAND` prints; it must end with that status."""
        done = otel_queue(*command.split(), environment=self.environment)
        assert done.returncode == expected, f"{command}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout

    def is_in_step(self) -> None:
        assert self.run("ledger check") == "every count is what its tracked ids add up to\n"
        said = self.run("shadow compare --exact")
        assert said.count("within tolerance") == 4
        assert "nothing to repair" in self.run("reconcile --pause 0")

    def serving(self) -> contextlib.AbstractContextManager[ServeProcess]:
        return serve(self.server.url, config=CONFIG, environment=self.environment)


@pytest.fixture
def installation(own_gateway: Gateway, redis_server: RedisServer) -> Installation:
    fill_days(own_gateway)
    made = Installation(own_gateway, redis_server)
    made.run("ledger init")
    made.run("seed --pause 0")
    made.run("reconcile --pause 0")
    return made


@pytest.fixture
def client(redis_server: RedisServer) -> Iterator[Any]:
    with redis_server.client() as opened:
        yield opened


def changed(client: Any, *days: str) -> None:
    """As a writer leaves it: readers look at days that changed, and go on with what they know of the others."""
    client.hsetnx("oq:{P}:meta", "contract", client.get("oq:contract"))
    sequence = client.hincrby("oq:{P}:meta", "sequence", 1)
    client.zadd("oq:{P}:days", dict.fromkeys(days, sequence))


def comes_from(found: Scrape, metric: str = EVENTS) -> str | None:
    for source in ("ledger", "postgres"):
        if found.value("otel_queue_source_active", metric=metric, source=source) == 1:
            return source
    return None


def succeeded(found: Scrape) -> float:
    return sum(found.values(DELIVERIES, status="success"))


def test_a_ledger_that_counts_wrong(installation: Installation, client: Any) -> None:
    """Exported: the wrong count, for nothing else is known. Said: by drift that stands. Mended: `ledger repair`."""
    with installation.serving() as exporter:
        exporter.scrape_until(
            lambda found: found.value("otel_queue_shadow_within_tolerance", metric=DELIVERIES) == 1, what="it compares"
        )
        counts = f"oq:{{P}}:counts:{DAY}"
        [field] = [name for name in client.hkeys(counts) if name.endswith(b":6")]
        client.hincrby(counts, field.decode(), WRONG)
        changed(client, DAY)
        found = exporter.scrape_until(
            lambda found: found.value("otel_queue_shadow_within_tolerance", metric=DELIVERIES) == 0,
            what="the difference stands",
            within=60,
        )
        assert succeeded(found) == SUCCEEDED + WRONG
        assert found.value("otel_queue_shadow_drift", metric=DELIVERIES) == WRONG
        assert comes_from(found, DELIVERIES) == "ledger"
        assert found.value("otel_queue_up", lane="ledger") == 1

        lines = [line.split() for line in installation.run("ledger check", FINDING).splitlines()]
        right = PER_DAY - 2
        assert ["P", DAY, field.decode().split(":")[0], "success", str(right + WRONG), str(right)] in lines
        assert "not ready" in installation.run("shadow report --domain-source ledger --domain-shadow postgres", FINDING)
        assert installation.run("ledger repair") == f"P {DAY}: counted anew\n"
        found = exporter.scrape_until(
            lambda found: found.value("otel_queue_shadow_within_tolerance", metric=DELIVERIES) == 1,
            what="the difference is gone",
            within=60,
        )
        assert succeeded(found) == SUCCEEDED
        assert found.value("otel_queue_shadow_drift", metric=DELIVERIES) == 0
    installation.is_in_step()


def test_a_ledger_whose_counts_were_evicted(installation: Installation, client: Any) -> None:
    """Exported: gauges from the database. Said: by reason `day_lost`. Mended: `reconcile`."""
    with installation.serving() as exporter:
        exporter.scrape_until(lambda found: comes_from(found) == "ledger", what="it reads the ledger")
        client.delete(f"oq:{{P}}:counts:{DAY}")
        changed(client, DAY)
        found = exporter.scrape_until(lambda found: comes_from(found) == "postgres", what="it falls back")
        assert found.value("otel_queue_errors_total", lane="ledger", reason="day_lost")
        assert succeeded(found) == SUCCEEDED
        said = installation.run("reconcile --pause 0")
        assert "counts" in said
        found = exporter.scrape_until(lambda found: comes_from(found) == "ledger", what="it returns")
        assert succeeded(found) == SUCCEEDED
    installation.is_in_step()


def test_a_ledger_whose_ids_were_evicted(installation: Installation, client: Any) -> None:
    """Exported: right until an id that was lost is told again, and counts twice. Said: by drift, and by the check.
    Mended: `seed`, which tells the ids again, and `reconcile`, which counts anew.
    """
    with installation.serving() as exporter:
        exporter.scrape_until(lambda found: comes_from(found) == "ledger", what="it reads the ledger")
        client.delete(f"oq:{{P}}:deliveries:{DAY}", f"oq:{{P}}:events:{DAY_BEFORE}")
        with contextlib.closing(Ledger(installation.server.url)) as ledger:
            ledger.write(StatusSet("P", LAST, "success", NOON_US + 1_000_000_000, endpoint="E1", event_type="t"))
        installation.gateway.execute(
            "UPDATE convoy.event_deliveries SET status = 'Success', updated_at = updated_at + interval '5 minutes'"
            " WHERE id = %s",
            LAST,
        )
        exporter.scrape_until(
            lambda found: found.value("otel_queue_shadow_within_tolerance", metric=DELIVERIES) == 0,
            what="the difference stands",
            within=60,
        )
        assert "processing" in installation.run("ledger check", FINDING)
        installation.run("seed --pause 0")
        installation.run("reconcile --pause 0")
        exporter.scrape_until(
            lambda found: (
                found.value("otel_queue_shadow_within_tolerance", metric=DELIVERIES) == 1
                and succeeded(found) == SUCCEEDED + 1
            ),
            what="the difference is gone",
            within=60,
        )
    installation.is_in_step()


def test_a_ledger_that_lists_its_days_no_more(installation: Installation, client: Any) -> None:
    """Exported: gauges from the database. Said: by reason `day_unlisted`, and `check`. Mended: `ledger repair`."""
    with installation.serving() as exporter:
        exporter.scrape_until(lambda found: comes_from(found) == "ledger", what="it reads the ledger")
        days = len(client.zrange("oq:{P}:days", 0, -1))
        client.delete("oq:{P}:days")
        changed(client, DAY)  # a record lists its own day again
        found = exporter.scrape_until(lambda found: comes_from(found) == "postgres", what="it falls back")
        assert found.value("otel_queue_errors_total", lane="ledger", reason="day_unlisted")
        assert sum(found.values(EVENTS, project="P")) == ALL_EVENTS

        assert installation.run("ledger check", FINDING).count(" unlisted ") == days - 1
        assert installation.run("ledger repair").count(": listed again\n") == days - 1
        exporter.scrape_until(lambda found: comes_from(found) == "ledger", what="it returns", within=60)
    installation.is_in_step()


@pytest.mark.parametrize("fault", ["flushed", "half lost"])
def test_a_ledger_that_is_gone(installation: Installation, client: Any, fault: str) -> None:
    """Exported: gauges from the database, no attempts. Said: by reasons. Mended: `ledger init`, `seed`, `reconcile`."""
    with installation.serving() as exporter:
        exporter.scrape_until(lambda found: comes_from(found) == "ledger", what="it reads the ledger")
        if fault == "flushed":
            client.flushall()
        else:
            client.delete(*sorted(client.keys("oq:{P}:*"))[::2])
            changed(client, DAY)
        found = exporter.scrape_until(lambda found: comes_from(found) == "postgres", what="it falls back")
        assert sum(found.values(EVENTS, project="P")) == ALL_EVENTS
        reasons = ("no_birth",) if fault == "flushed" else ("project_lost", "day_lost", "day_unlisted", "group_lost")
        assert any(found.value("otel_queue_errors_total", lane="ledger", reason=reason) for reason in reasons)

        begun = "the ledger begins now" if fault == "flushed" else "the ledger has begun already"
        assert installation.run("ledger init").startswith(f"{begun}\n")
        installation.run("seed --pause 0")
        installation.run("reconcile --pause 0")
        found = exporter.scrape_until(lambda found: comes_from(found) == "ledger", what="it returns", within=60)
        assert sum(found.values(EVENTS, project="P")) == ALL_EVENTS
        assert succeeded(found) == SUCCEEDED
    installation.is_in_step()
