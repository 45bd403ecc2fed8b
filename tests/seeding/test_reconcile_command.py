"""`otel-queue reconcile`, as an operator runs it."""

import json
import signal
from collections.abc import Iterator

import pytest

from otel_queue.cli import FINDING, FINE, UNREACHABLE, USAGE, main
from otel_queue.lifecycle import AttemptMade
from tests.ledger.ledgers import DAY_US, Ledger, now_us, ulid
from tests.postgres.gateway import ATTEMPTS, Gateway
from tests.seeding.scene import FIRST, LAST, NOON_US, Scene, add_attempt, everything, seeded_scene
from tests.seeding.tables import MINUTE_US
from tests.servers.redis import RedisServer


@pytest.fixture(autouse=True)
def signals_as_before() -> Iterator[None]:
    """The command takes these signals for itself."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    yield
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture
def scene(
    gateway: Gateway, ledger: Ledger, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Scene]:
    monkeypatch.setenv("OTEL_QUEUE_POSTGRES_DSN", gateway.dsn.reveal())
    monkeypatch.setenv("OTEL_QUEUE_REDIS_URL", ledger.url)
    with seeded_scene(gateway, ledger, redis_server) as opened:
        yield opened


def damage(scene: Scene) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET status = 'Failure' WHERE id = %s", LAST)
    scene.sql("DELETE FROM convoy.event_deliveries WHERE id = %s", FIRST)


def test_it_says_what_it_would_repair_then_repairs_it_then_finds_nothing(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    damage(scene)
    assert main(["--verbose", "reconcile", "--pause", "0", "--dry-run"]) == FINDING
    out = capsys.readouterr().out
    assert "TO REPAIR" in out
    assert ["P", "delivery", "status", LAST, "status", "processing", "failure"] in [
        line.split() for line in out.splitlines()
    ]
    assert "nothing was written" in out
    assert main(["reconcile", "--pause", "0"]) == FINE
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["P", "delivery", "status", "1"] in lines
    assert ["P", "delivery", "gone", "1"] in lines
    scene.assert_agrees()
    assert main(["reconcile", "--pause", "0"]) == FINE
    assert "nothing to repair" in capsys.readouterr().out


def test_its_json_has_counts_and_examples(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    damage(scene)
    assert main(["reconcile", "--pause", "0", "--json"]) == FINE
    told = json.loads(capsys.readouterr().out)
    assert told["dry_run"] is False
    assert told["repairs"] == [
        {"project": "P", "what": "delivery gone", "count": 1},
        {"project": "P", "what": "delivery status", "count": 1},
    ]
    assert told["examples"][0] == {
        "project": "P",
        "what": "delivery status",
        "id": LAST,
        "field": "status",
        "held": "processing",
        "database": "failure",
    }
    assert (told["left"], told["moving"], told["beyond"]) == ([], [], [])
    assert told["read"]["deliveries"] == 12


def test_its_examples_are_bounded(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET endpoint_id = 'E9'")
    assert main(["reconcile", "--pause", "0", "--json"]) == FINE
    told = json.loads(capsys.readouterr().out)
    assert [each["count"] for each in told["repairs"]] == [13, 1]
    assert sum(each["what"] == "delivery label" for each in told["examples"]) == 5


def test_what_cannot_be_repaired_is_a_finding(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.sql("UPDATE convoy.event_deliveries SET status = 'Wandering' WHERE id = %s", LAST)
    assert main(["reconcile", "--pause", "0"]) == FINDING
    out = capsys.readouterr().out
    assert "LEFT" in out
    assert "'Wandering' is not one of" in out


def test_attempts_without_a_time_are_counted_by_their_ids_or_named(
    scene: Scene, capsys: pytest.CaptureFixture[str]
) -> None:
    for id_ in (ulid(NOON_US, 5_001), ulid(NOON_US - DAY_US - MINUTE_US, 5_002), "no ulid"):
        add_attempt(scene.gateway, id_, None)
    assert main(["reconcile", "--pause", "0"]) == FINDING
    lines = capsys.readouterr().out.splitlines()
    assert "before the ledger's birth, where its counter starts: 1 attempt" in lines
    assert ["P", "attempt", "missing", "1"] in [line.split() for line in lines]
    assert sum("created_at is NULL" in line for line in lines) == 1
    assert main(["reconcile", "--pause", "0", "--json"]) == FINDING
    told = json.loads(capsys.readouterr().out)
    assert (told["early_attempts"], told["repairs"]) == (1, [])
    assert [(each["project"], each["count"]) for each in told["left"]] == [("P", 1)]


@pytest.mark.parametrize("command", ["seed", "reconcile"])
def test_attempts_that_workers_count_under_ids_of_their_own_are_not_counted_again(
    scene: Scene, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    for number in range(6):
        scene.ledger.write(AttemptMade("P", ulid(NOON_US, 6_000 + number), NOON_US, "E1", True, "200 OK"))
        add_attempt(scene.gateway, ulid(NOON_US, 7_000 + number), NOON_US)
    before = everything(scene.client)
    assert main([command, "--pause", "0"]) == USAGE
    assert "6 of 7 attempts" in (err := capsys.readouterr().err)
    assert "--no-attempts" in err
    assert everything(scene.client) == before
    assert main([command, "--pause", "0", "--project", "Q"]) == FINE
    assert main([command, "--pause", "0", "--no-attempts"]) == FINE
    assert sum(scene.ledger.families()[ATTEMPTS].values()) == 7


def test_a_few_attempts_without_a_row_are_a_warning(
    scene: Scene, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    scene.ledger.write(AttemptMade("P", ulid(NOON_US, 6_000), NOON_US, "E1", True, "200 OK"))
    assert main(["reconcile", "--pause", "0"]) == FINE
    assert "1 of 2 attempts that the ledger counted last have no row" in caplog.text
    assert "nothing to repair" in capsys.readouterr().out


def test_attempts_whose_rows_may_still_come_are_not_taken_for_workers_own(
    scene: Scene, caplog: pytest.LogCaptureFixture
) -> None:
    for number in range(6):
        scene.ledger.write(AttemptMade("P", ulid(now_us(), number), now_us(), "E1", True, "200 OK"))
    assert main(["reconcile", "--pause", "0"]) == FINE
    assert "have no row" not in caplog.text


def test_a_ledger_without_its_birth_is_not_reconciled(scene: Scene, capsys: pytest.CaptureFixture[str]) -> None:
    scene.client.delete("oq:contract")
    assert main(["reconcile", "--pause", "0"]) == USAGE
    assert "otel-queue ledger init" in capsys.readouterr().err


@pytest.mark.parametrize("refuses", ["redis", "postgres"])
def test_where_either_of_them_lets_nobody_in_it_is_unreachable(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], refuses: str
) -> None:
    if refuses == "redis":
        monkeypatch.setenv("OTEL_QUEUE_REDIS_URL", scene.ledger.url.replace("redis://", "redis://nobody:s3cr3t@"))
    else:
        monkeypatch.setenv("OTEL_QUEUE_POSTGRES_DSN", scene.gateway.dsn_of("nobody", "s3cr3t").reveal())
    assert main(["reconcile", "--pause", "0"]) == UNREACHABLE
    told = capsys.readouterr()
    assert "running it again goes on safely" in told.err
    assert "s3cr3t" not in told.out + told.err
