"""`otel-queue seed` as an operator runs it: it says what it did, and can be ended at any point."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from otel_queue.cli import FINDING, FINE, UNREACHABLE, USAGE
from otel_queue.postgres.database import statement
from tests.ledger.ledgers import DAY_US, Ledger, now_us, ulid
from tests.postgres.gateway import ATTEMPTS, Gateway
from tests.seeding.seeds import assert_agree
from tests.seeding.tables import fill
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer


@contextmanager
def command(url: str, dsn: str, *arguments: str) -> Iterator["subprocess.Popen[str]"]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OTEL_QUEUE_"))}
    process = subprocess.Popen(
        [str(Path(sys.executable).parent / "otel-queue"), "seed", "--redis-url", url, *arguments],
        env=inherited | {"OTEL_QUEUE_POSTGRES_DSN": dsn},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def run(url: str, gateway: Gateway, *arguments: str, dsn: str | None = None) -> tuple[int, str, str]:
    """Exit status, stdout and stderr."""
    with command(url, gateway.dsn.reveal() if dsn is None else dsn, *arguments) as process:
        out, err = process.communicate(timeout=60)
        return process.returncode, out, err


def test_it_says_what_it_did(gateway: Gateway, ledger: Ledger) -> None:
    gateway.event("e1")
    gateway.delivery(ulid(now_us(), 1), "e1", "Success")
    gateway.delivery(ulid(now_us() - 40 * DAY_US, 2), "e1", "Success", seconds=40 * 86_400)
    status, out, _ = run(ledger.url, gateway)
    assert status == FINE
    assert "deliveries read: 1" in out.splitlines()
    assert "put as counts, which are approximate: 1 day" in out.splitlines()
    assert "changed the ledger: 3 records; known before: 0" in out.splitlines()
    assert_agree(ledger, gateway)


def test_the_summary_as_json(gateway: Gateway, ledger: Ledger) -> None:
    fill(gateway, 1, size=30)
    run(ledger.url, gateway)
    status, out, _ = run(ledger.url, gateway, "--json", "--batch", "7", "--pause", "0")
    told = json.loads(out)
    assert status == FINE
    assert told["early_attempts"] == 0
    assert (told["changed"], told["late"], told["left_out"], told["unmergeable"]) == (0, 0, {}, {})
    # A row whose status was set is two records.
    assert told["known"] >= sum(told["rows"].get(what, 0) for what in ("deliveries", "events", "attempts"))


def test_attempts_stay_away_where_workers_count_them_under_ids_of_their_own(gateway: Gateway, ledger: Ledger) -> None:
    fill(gateway, 1, size=30)
    run(ledger.url, gateway, "--no-attempts")
    assert not ledger.families()[ATTEMPTS]
    run(ledger.url, gateway)
    assert ledger.families()[ATTEMPTS]


@pytest.mark.parametrize("number", range(2))
def test_it_can_be_killed_at_any_point_and_run_again(
    any_gateway: Gateway, ledger: Ledger, redis_server: RedisServer, number: int
) -> None:
    fill(any_gateway, number)
    with redis_server.client() as client:
        for more in (5, 25, 60, 20):
            enough = changes(client) + more
            with command(ledger.url, any_gateway.dsn.reveal(), "--batch", "3", "--pause", "0.01") as process:
                wait_until_changes(client, enough, process)
                process.send_signal(signal.SIGKILL)
    assert run(ledger.url, any_gateway, "--pause", "0")[0] == FINE
    assert_agree(ledger, any_gateway)
    assert ledger.differences() == []


def wait_until_changes(client: Any, enough: int, process: "subprocess.Popen[str]") -> None:
    """Or until the process has come to its end."""
    wait_until(lambda: process.poll() is not None or changes(client) >= enough, what="the seed has written some of it")


def changes(client: Any) -> int:
    """How often the ledger's projects were written to."""
    found = client.info("commandstats")
    return int(found.get("cmdstat_evalsha", {}).get("calls", 0)) + int(found.get("cmdstat_eval", {}).get("calls", 0))


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_stops_between_two_batches_when_asked(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer, number: signal.Signals
) -> None:
    fill(gateway, 1)
    with redis_server.client() as client:
        before = changes(client)
    with (
        redis_server.client() as client,
        command(ledger.url, gateway.dsn.reveal(), "--batch", "3", "--pause", "0.05") as process,
    ):
        wait_until_changes(client, before + 10, process)
        process.send_signal(number)
        _, err = process.communicate(timeout=60)
        assert process.returncode == FINDING
    assert "running it again goes on safely" in err
    assert "Traceback" not in err
    assert run(ledger.url, gateway, "--pause", "0")[0] == FINE
    assert_agree(ledger, gateway)


def test_a_dry_run_writes_nothing_and_says_what_it_would_do(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer
) -> None:
    fill(gateway, 1)
    gateway.execute("ANALYZE")
    with redis_server.client() as client:
        before = client.dbsize()
        status, out, _ = run(ledger.url, gateway, "--dry-run", "--json")
        assert client.dbsize() == before
    told = json.loads(out)
    assert status == FINE
    assert 0 < told["rows"]["deliveries"] < 250
    assert told["rows"]["old_deliveries"] > 0
    assert 0 < told["rows"]["attempts"] < 200
    assert told["ledger_bytes"] >= 89 * told["rows"]["deliveries"]
    assert told["rows_per_second"] > 0
    status, out, _ = run(ledger.url, gateway, "--dry-run")
    assert status == FINE
    assert out.splitlines()[-1] == "nothing was written"


def test_a_ledger_without_its_birth_is_not_seeded(gateway: Gateway, redis_server: RedisServer, redis_url: str) -> None:
    status, _, err = run(redis_url, gateway)
    assert status == USAGE
    assert "otel-queue ledger init" in err
    with redis_server.client() as client:
        assert client.dbsize() == 0


def test_without_a_database_it_says_which_setting_is_missing(gateway: Gateway, ledger: Ledger) -> None:
    status, _, err = run(ledger.url, gateway, dsn="")
    assert status == USAGE
    assert "postgres.dsn" in err


def test_a_database_that_refuses_is_unreachable_and_no_secret_is_shown(gateway: Gateway, ledger: Ledger) -> None:
    dsn = gateway.dsn_of("nobody", "s3cr3t").reveal()
    status, out, err = run(ledger.url, gateway, dsn=dsn)
    assert status == UNREACHABLE
    assert "(auth)" in err
    assert "s3cr3t" not in out + err


def test_the_least_role_can_seed(gateway: Gateway, ledger: Ledger) -> None:
    fill(gateway, 2, size=20)
    gateway.execute("CREATE ROLE otel_queue LOGIN PASSWORD 'secret'")
    try:
        gateway.execute(statement("seed/grants"))
        assert run(ledger.url, gateway, dsn=gateway.dsn_of("otel_queue", "secret").reveal())[0] == FINE
    finally:
        gateway.execute("DROP OWNED BY otel_queue; DROP ROLE otel_queue")
    assert_agree(ledger, gateway)


def test_what_was_left_out_is_a_finding(gateway: Gateway, ledger: Ledger) -> None:
    gateway.delivery(ulid(now_us(), 1), "gone", "Vanished")
    status, out, _ = run(ledger.url, gateway)
    assert status == FINDING
    assert re.search(r"not merged: 1 row: .*'Vanished'", out)


def test_a_pause_or_a_batch_out_of_bounds_is_refused(gateway: Gateway, ledger: Ledger) -> None:
    for arguments in (("--pause", "-1"), ("--pause", "nan"), ("--batch", "0")):
        assert run(ledger.url, gateway, *arguments)[0] == USAGE
