import json
from collections.abc import Iterator

import pytest

from otel_queue.cli import FINDING, FINE, UNREACHABLE, USAGE, main
from otel_queue.lifecycle import DeliveryRead, EventCreated
from tests.ledger.ledgers import now_us, ulid
from tests.ledger.merging import HOUR_US, TwoLedgers
from tests.servers.redis import RedisServer

NOW_US = now_us()
READ_US = NOW_US - HOUR_US
IDS = [ulid(READ_US - HOUR_US, number) for number in range(3)]


@pytest.fixture
def ledgers(redis_server: RedisServer) -> Iterator[TwoLedgers]:
    opened = TwoLedgers(redis_server)
    opened.follow(*(DeliveryRead("P", id_, "success", READ_US, "E", "t", "S") for id_ in IDS))
    opened.follow(EventCreated("P", IDS[0], READ_US, "S"))
    yield opened
    opened.close()


def merge(redis_server: RedisServer, *arguments: str) -> int:
    return main(["ledger", "merge", "--redis-url", redis_server.url, *arguments])


def without_seconds(out: str) -> list[str]:
    *lines, seconds = out.splitlines()
    assert seconds.endswith(" s")
    return lines


def test_a_dry_run_and_the_merge_print_the_same_table(
    redis_server: RedisServer, ledgers: TwoLedgers, capsys: pytest.CaptureFixture[str]
) -> None:
    assert merge(redis_server, "--dry-run") == FINDING
    assert without_seconds(capsys.readouterr().out) == [
        "delivery ids compared: 3",
        "event ids compared: 1",
        "PROJECT  TO MERGE        COUNT",
        "P        delivery added      3",
        "P        event added         1",
        "nothing was written",
    ]
    assert merge(redis_server) == FINE
    assert without_seconds(capsys.readouterr().out) == [
        "delivery ids compared: 3",
        "event ids compared: 1",
        "PROJECT  MERGED          COUNT",
        "P        delivery added      3",
        "P        event added         1",
    ]
    for arguments in ((), ("--dry-run",)):
        assert merge(redis_server, *arguments) == FINE
        assert "nothing to merge" in capsys.readouterr().out
    assert ledgers.statuses() == {("E", "success"): 3}


def test_the_report_as_json(redis_server: RedisServer, ledgers: TwoLedgers, capsys: pytest.CaptureFixture[str]) -> None:
    assert merge(redis_server, "--json", "--project", "P") == FINE
    told = json.loads(capsys.readouterr().out)
    assert told.pop("seconds") >= 0
    assert told == {
        "dry_run": False,
        "compared": {"delivery": 3, "event": 1},
        "merged": [
            {"project": "P", "what": "delivery added", "count": 3},
            {"project": "P", "what": "event added", "count": 1},
        ],
        "moving": [],
        "beyond": [],
        "left": [],
        "needs_force": [],
    }


def test_what_takes_force_is_shown_before_it_is_done(
    redis_server: RedisServer, ledgers: TwoLedgers, capsys: pytest.CaptureFixture[str]
) -> None:
    told_us = READ_US - HOUR_US
    ledgers.hook(*(DeliveryRead("P", id_, "processing", told_us, "E", "t", "S") for id_ in IDS))
    before = ledgers.keys()
    assert merge(redis_server) == FINDING
    refused = capsys.readouterr()
    assert "TO MERGE" in refused.out
    assert "nothing was written" in refused.out
    assert "P: 3 of 3 statuses would change, which is more than 5%" in refused.err
    assert "no old copy of it, then merge with --force" in refused.err
    assert ledgers.keys() == before
    assert merge(redis_server, "--force") == FINE
    shown = capsys.readouterr().out
    assert 0 <= shown.index("TO MERGE") < shown.index("MERGED")
    assert ledgers.statuses() == {("E", "success"): 3}


def test_a_ledger_that_was_never_begun_says_how_to_begin_it(
    redis_server: RedisServer, capsys: pytest.CaptureFixture[str]
) -> None:
    assert merge(redis_server) == USAGE
    assert "otel-queue ledger init" in capsys.readouterr().err


def test_a_redis_that_is_gone_is_unreachable(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "merge", "--redis-url", "redis://127.0.0.1:1"]) == UNREACHABLE
    assert "running it again goes on safely" in capsys.readouterr().err
