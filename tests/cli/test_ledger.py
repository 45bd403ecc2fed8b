import json
import time

import pytest
import redis

from otel_queue.cli import FINDING, FINE, UNREACHABLE, USAGE, main
from otel_queue.config import RedisConfig
from otel_queue.ledger.contract import Rule
from otel_queue.ledger.store import LedgerStore
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, StatusSet
from otel_queue.redis_client import connect
from otel_queue.ulid import new_ulid
from tests.ledger.ledgers import DAY_US, agree_on, day_of, now_us, ulid

NOW_US = now_us()
YESTERDAY = day_of(NOW_US - DAY_US)


@pytest.fixture
def ledger(redis_url: str) -> str:
    """A ledger that has begun, with three deliveries of two endpoints, made yesterday."""
    now = NOW_US - DAY_US
    records: list[EventCreated | DeliveryCreated | StatusSet | AttemptMade] = []
    for number in range(3):
        delivery = ulid(now, number)
        endpoint = f"E{number % 2}"
        records += [
            EventCreated("P", delivery, now, None),
            DeliveryCreated("P", delivery, now, endpoint, "paid", None),
            StatusSet("P", delivery, "Processing", now + 1),
            AttemptMade("P", new_ulid(), now, endpoint, True, 200),
        ]
    assert main(["ledger", "init", "--redis-url", redis_url]) == FINE
    LedgerStore(connect(RedisConfig(url=redis_url))).write(records, time.monotonic() + 10)
    return redis_url


def test_init_begins_a_ledger_once(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    tracked = (
        "deliveries and events are tracked for 30 days, attempts for 7 days; at most 100000 sets of labels a project"
    )
    for said in ("the ledger begins now", "the ledger has begun already"):
        assert main(["ledger", "init", "--redis-url", redis_url]) == FINE
        assert capsys.readouterr().out.splitlines() == [said, f"ids from the first day: {tracked}"]


def test_init_with_other_days_changes_what_holds_for_later_ids(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    main(["ledger", "init", "--track-days", "10", "--redis-url", redis_url])
    capsys.readouterr()
    assert main(["ledger", "init", "--track-days", "60", "--redis-url", redis_url]) == FINE
    begun, first, later = capsys.readouterr().out.splitlines()
    assert begun == "the ledger has begun already"
    assert first.startswith("ids from the first day: deliveries and events are tracked for 10 days")
    assert later.startswith(f"ids from {day_of(NOW_US + 2 * DAY_US)}: deliveries and events are tracked for 60 days")
    for refused in ("0", "1" + 17 * "0"):
        with pytest.raises(SystemExit):
            main(["ledger", "init", "--track-days", refused, "--redis-url", redis_url])


def test_a_ledger_without_its_birth_is_unknown_not_empty(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "show", "--redis-url", redis_url]) == UNREACHABLE
    assert "oq:contract is missing" in capsys.readouterr().err


def test_show_has_a_line_per_project_and_day(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["ledger", "show", "--json", "--redis-url", ledger]) == FINE
    day, attempts = json.loads(capsys.readouterr().out)
    assert (day["project"], day["deliveries"], day["events"], day["processing"]) == ("P", 3, 3, 2)
    assert (attempts["day"], attempts["attempts"]) == ("attempts", 3)


def test_show_says_what_of_a_ledger_is_lost(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    with redis.Redis.from_url(ledger) as client:
        client.delete(f"oq:{{P}}:counts:{YESTERDAY}")
    assert main(["ledger", "show", "--redis-url", ledger]) == FINDING
    assert "parts of the ledger cannot be read: day_lost (1)" in capsys.readouterr().err


def test_check_finds_days_that_are_not_listed_and_repair_lists_them(
    ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with redis.Redis.from_url(ledger) as client:
        client.delete("oq:{P}:days")
    assert main(["ledger", "show", "--redis-url", ledger]) == FINDING
    assert "parts of the ledger cannot be read: day_unlisted (1)" in capsys.readouterr().err
    assert main(["ledger", "check", "--redis-url", ledger]) == FINDING
    assert [line.split() for line in capsys.readouterr().out.splitlines()[1:]] == [
        ["P", YESTERDAY, "-", "unlisted", "-", "-"],
        ["P", "attempts", "-", "unlisted", "-", "-"],
    ]
    assert main(["ledger", "check", "--json", "--redis-url", ledger]) == FINDING
    assert {finding["what"] for finding in json.loads(capsys.readouterr().out)} == {"unlisted"}
    assert main(["ledger", "repair", "--redis-url", ledger]) == FINE
    assert capsys.readouterr().out == f"P {YESTERDAY}: listed again\nP attempts: listed again\n"
    assert main(["ledger", "check", "--redis-url", ledger]) == FINE
    assert main(["ledger", "show", "--redis-url", ledger]) == FINE


def test_check_finds_a_wrong_count_and_repair_mends_it(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "check", "--redis-url", ledger]) == FINE
    counts = f"oq:{{P}}:counts:{YESTERDAY}"
    with redis.Redis.from_url(ledger) as client:
        client.hincrby(counts, next(iter(client.hgetall(counts))), 7)
    assert main(["ledger", "check", "--redis-url", ledger]) == FINDING
    assert main(["ledger", "repair", "--redis-url", ledger]) == FINE
    capsys.readouterr()
    assert main(["ledger", "check", "--redis-url", ledger]) == FINE
    assert "every count is what its tracked ids add up to" in capsys.readouterr().out


def test_expire_takes_days_out_and_refuses_what_is_no_day(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ledger", "expire", "--through", "yesterday", "--redis-url", ledger]) == USAGE
    assert "must be YYYYMMDD" in capsys.readouterr().err
    assert main(["ledger", "expire", "--through", YESTERDAY, "--redis-url", ledger]) == FINE
    assert capsys.readouterr().out == "P: 1 day expired\n"


@pytest.mark.parametrize("days_ahead", [0, 1, 9_000])
def test_a_day_that_is_not_over_is_not_closed(ledger: str, capsys: pytest.CaptureFixture[str], days_ahead: int) -> None:
    capsys.readouterr()
    day = day_of(NOW_US + days_ahead * DAY_US)
    assert main(["ledger", "expire", "--through", day, "--redis-url", ledger]) == USAGE
    out, err = capsys.readouterr()
    assert (out, err.startswith(f"otel-queue: {day} is not over by Redis's clock")) == ("", True)
    with redis.Redis.from_url(ledger) as client:
        assert client.hmget("oq:{P}:meta", "expired", "settled") == [None, None]


def test_a_project_whose_days_cannot_be_expired_is_named_and_keeps_no_other(
    ledger: str, capsys: pytest.CaptureFixture[str]
) -> None:
    today = [EventCreated(project, ulid(NOW_US, 9), NOW_US) for project in "AZ"]
    LedgerStore(connect(RedisConfig(url=ledger))).write(today, time.monotonic() + 10)
    with redis.Redis.from_url(ledger) as client:
        client.delete("oq:{A}:days")
        client.set("oq:{A}:days", "text")
        client.zadd("oq:projects", {"B": 1})
    capsys.readouterr()
    assert main(["ledger", "expire", "--through", YESTERDAY, "--redis-url", ledger]) == FINDING
    out, err = capsys.readouterr()
    assert out == "P: 1 day expired\nZ: 0 days expired\n"
    of_a, of_b = err.splitlines()
    assert of_a.startswith("otel-queue: A: not expired (wrong_type): ")
    assert of_b.startswith(
        "otel-queue: B: not expired (contract): the project has no contract: nothing was ever recorded"
    )


def test_settle_says_what_it_ended(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["ledger", "settle", "--redis-url", ledger]) == FINE
    assert capsys.readouterr().out == "P: 0 days, 0 undated ids settled\n"
    with redis.Redis.from_url(ledger) as client:
        agree_on(client, rules=(Rule(track_days=0),))
    assert main(["ledger", "settle", "--redis-url", ledger]) == FINE
    assert capsys.readouterr().out == "P: 1 day, 0 undated ids settled\n"


def test_estimate_says_what_a_set_of_keys_would_cost(ledger: str, capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert main(["ledger", "estimate", "--json", "--keys", "project,status", "--redis-url", ledger]) == FINE
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)}
    assert rows["convoy_event_delivery_queue_total"]["full"] == 2
    assert rows["convoy_event_delivery_queue_total"]["chosen"] == 1
    assert rows["convoy_project_info"]["full"] is None
    assert main(["ledger", "estimate", "--redis-url", ledger]) == FINE
    assert "SERIES as configured" in capsys.readouterr().out


def test_check_command_tells_a_ledger_that_was_never_begun(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--redis-url", redis_url, "--domain-source", "ledger"]) == FINDING
    assert "FAIL  ledger:" in capsys.readouterr().out
