"""Merging days that are settled: their counts, and their deliveries that are not final."""

from collections.abc import Iterator
from dataclasses import replace

import pytest

from otel_queue.ledger.contract import Rule, parse_contract
from otel_queue.lifecycle import DeliveryRead, EventCreated, Record, StatusSet
from tests.ledger.ledgers import DAY_US, now_us, ulid
from tests.ledger.merging import HOUR_US, SECOND_US, TwoLedgers, found
from tests.servers.redis import RedisServer

NOW_US = now_us()
OLD_US = NOW_US // DAY_US * DAY_US - 5 * DAY_US
READ_US = NOW_US - HOUR_US


@pytest.fixture
def ledgers(redis_server: RedisServer) -> Iterator[TwoLedgers]:
    opened = TwoLedgers(redis_server)
    yield opened
    opened.close()


def settle(ledgers: TwoLedgers) -> None:
    """Settles all days up to yesterday in both ledgers, as if it were the time."""
    for namespace, side in (("oq", ledgers.hooks), ("oq-db", ledgers.rows)):
        held = ledgers.client.get(f"{namespace}:contract")
        assert isinstance(held, bytes)
        text = replace(parse_contract(held), rules=(Rule(track_days=1, attempt_days=1),)).text()
        for key in (f"{namespace}:contract", f"{namespace}:{{p}}:meta"):
            if ledgers.client.type(key) == b"hash":
                ledgers.client.hset(key, "contract", text)
            elif ledgers.client.exists(key):
                ledgers.client.set(key, text)
        for project in side.projects():
            side.upkeep.settle(project)


def deliveries(status: str, *numbers: int, told_us: int = READ_US, endpoint: str = "E") -> list[Record]:
    return [DeliveryRead("p", ulid(OLD_US, number), status, told_us, endpoint, "t", "S") for number in numbers]


def test_a_ledger_is_seeded_with_settled_days_and_knows_what_is_not_final_there(ledgers: TwoLedgers) -> None:
    ledgers.follow(*deliveries("success", *range(50)), *deliveries("retry", 50), *deliveries("processing", 51))
    ledgers.follow(EventCreated("p", ulid(OLD_US, 1), READ_US, "S"))
    settle(ledgers)
    assert found(ledgers.merge()) == {"settled day": 1}
    assert ledgers.families() == ledgers.families(of_rows=True)
    assert found(ledgers.merge()) == {}
    # Hooks move what is not final, from where it counts.
    ledgers.hook(*(StatusSet("p", ulid(OLD_US, number), "failure", now_us()) for number in (50, 51)))
    assert ledgers.statuses() == {("E", "success"): 50, ("E", "failure"): 2}


def test_a_settled_day_that_lost_deliveries_gets_the_counts_of_the_rows(ledgers: TwoLedgers) -> None:
    ledgers.follow(*deliveries("success", *range(50)))
    ledgers.hook(*deliveries("success", *range(1, 49)), *deliveries("failure", 49))
    settle(ledgers)
    assert found(ledgers.merge()) == {"settled day": 1}
    assert ledgers.statuses() == {("E", "success"): 50}
    assert found(ledgers.merge()) == {}


def test_a_settled_day_with_more_than_the_rows_is_left_without_force(ledgers: TwoLedgers) -> None:
    ledgers.follow(*deliveries("success", *range(50)))
    ledgers.hook(*deliveries("success", *range(51)))
    settle(ledgers)
    report = ledgers.merge()
    assert (found(report), report.left) == ({}, {("p", "settled day with more than the rows"): 1})
    assert found(ledgers.merge(force=True)) == {"settled day": 1}
    assert ledgers.statuses() == {("E", "success"): 50}


def test_statuses_of_settled_days_count_among_those_that_take_force(ledgers: TwoLedgers) -> None:
    ledgers.follow(*deliveries("success", *range(50)))
    ledgers.hook(*deliveries("success", *range(45)), *deliveries("failure", *range(45, 50)))
    settle(ledgers)
    assert ledgers.merge().reasons == ["p: 5 of 50 statuses would change, which is more than 5%"]
    assert ledgers.statuses() == {("E", "success"): 45, ("E", "failure"): 5}


def test_a_delivery_that_is_not_final_in_both_is_told_what_its_row_says(ledgers: TwoLedgers) -> None:
    ledgers.follow(*deliveries("success", *range(50)), *deliveries("retry", 50))
    ledgers.hook(*deliveries("success", *range(50)), *deliveries("processing", 50, told_us=READ_US - HOUR_US))
    settle(ledgers)
    assert found(ledgers.merge()) == {"delivery status": 1}
    assert ledgers.families() == ledgers.families(of_rows=True)
    assert found(ledgers.merge()) == {}


def test_a_delivery_whose_end_a_hook_lost_ends_as_its_row_did(ledgers: TwoLedgers) -> None:
    ledgers.follow(*deliveries("success", *range(51)))
    ledgers.hook(*deliveries("success", *range(50)), *deliveries("processing", 50, told_us=READ_US - HOUR_US))
    settle(ledgers)
    assert found(ledgers.merge()) == {"settled day": 1}
    assert ledgers.statuses() == {("E", "success"): 51}
    # It is not known singly any more: what is told of it is late, and takes nothing from where it is not.
    assert ledgers.hooks.write([StatusSet("p", ulid(OLD_US, 50), "failure", now_us())]) == 1
    assert ledgers.statuses() == {("E", "success"): 51}


def test_what_a_hook_ended_after_the_row_was_read_stays_ended(ledgers: TwoLedgers) -> None:
    told = [*deliveries("success", *range(50)), *deliveries("processing", 50)]
    ledgers.follow(*told)
    ledgers.hook(*told)
    settle(ledgers)
    ledgers.hook(StatusSet("p", ulid(OLD_US, 50), "success", now_us()))
    report = ledgers.merge(force=True)
    assert found(report) == {}
    assert report.left == {("p", "settled day with deliveries in flight that the ledger takes for final"): 1}
    assert ledgers.statuses() == {("E", "success"): 51}


def test_what_a_hook_told_anew_of_a_settled_day_is_not_ended(ledgers: TwoLedgers) -> None:
    ledgers.follow(*deliveries("success", *range(51)))
    ledgers.hook(*deliveries("success", *range(50)), *deliveries("processing", 50, told_us=now_us()))
    settle(ledgers)
    ledgers.sweep(NOW_US - 2 * SECOND_US)
    report = ledgers.merge(force=True)
    assert (found(report), report.moving) == ({}, {("p", "settled day"): 1})
    assert ledgers.statuses() == {("E", "success"): 50, ("E", "processing"): 1}


def test_a_day_that_changes_while_it_is_compared_is_left_for_the_next_run(
    ledgers: TwoLedgers, monkeypatch: pytest.MonkeyPatch
) -> None:
    from otel_queue.ledger.counts import CountsStore

    both = [*deliveries("success", *range(50)), *deliveries("processing", 60)]
    ledgers.follow(*both, *deliveries("success", 51))
    ledgers.hook(*both)
    settle(ledgers)
    real = CountsStore.replace

    def replace_later(store: CountsStore, *arguments: object) -> bool:
        ledgers.hook(StatusSet("p", ulid(OLD_US, 60), "success", now_us()))
        return real(store, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(CountsStore, "replace", replace_later)
    assert ledgers.merge().moving == {("p", "settled day"): 1}
    assert ledgers.statuses() == {("E", "success"): 51}
