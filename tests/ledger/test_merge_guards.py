"""What a merge does not do without force: an old clone of the database, or a wrong one, can do no harm."""

from collections.abc import Iterator, Sequence

import pytest

from otel_queue.ledger.merge import Report
from otel_queue.ledger.merge.side import Side
from otel_queue.lifecycle import DayExpired, DeliveryRead, EventCreated, Record, StatusSet
from tests.ledger.ledgers import DAY_US, day_of, now_us, ulid
from tests.ledger.merging import HOUR_US, SECOND_US, TwoLedgers, found
from tests.servers.redis import RedisServer

NOW_US = now_us()
READ_US = NOW_US - HOUR_US
TODAY_US = NOW_US // DAY_US * DAY_US


@pytest.fixture
def ledgers(redis_server: RedisServer) -> Iterator[TwoLedgers]:
    opened = TwoLedgers(redis_server)
    yield opened
    opened.close()


def deliveries(count: int, status: str, told_us: int, *, days_ago: int = 0, project: str = "p") -> list[Record]:
    ids = (ulid(TODAY_US - days_ago * DAY_US, number) for number in range(count))
    return [DeliveryRead(project, id_, status, told_us, "E", "t", "S") for id_ in ids]


@pytest.mark.parametrize(("changed", "is_refused"), [(5, False), (6, True)])
def test_more_than_five_of_a_hundred_statuses_change_with_force_only(
    ledgers: TwoLedgers, changed: int, is_refused: bool
) -> None:
    ledgers.hook(*deliveries(100, "processing", READ_US - HOUR_US))
    ledgers.follow(*deliveries(100, "processing", READ_US), *deliveries(changed, "success", READ_US + 1))
    before, shown = ledgers.keys(), list[Report]()
    report = ledgers.merge(survey=shown.append)
    assert (ledgers.keys() == before, bool(report.reasons), report.is_clean) == (is_refused, is_refused, not is_refused)
    assert shown == []
    if is_refused:
        assert report.reasons == ["p: 6 of 100 statuses would change, which is more than 5%"]
        assert ledgers.merge(force=True, survey=shown.append).is_clean
        assert [each.merged for each in shown] == [report.merged]
    assert ledgers.statuses() == {("E", "processing"): 100 - changed, ("E", "success"): changed}


def test_one_project_that_differs_too_much_keeps_all_from_being_merged(ledgers: TwoLedgers) -> None:
    """What is wrong with its rows may be wrong with the rows of the others."""
    ledgers.hook(*deliveries(10, "processing", READ_US - HOUR_US))
    ledgers.follow(*deliveries(10, "success", READ_US), *deliveries(3, "success", READ_US, project="q"))
    before = ledgers.keys()
    assert not ledgers.merge().is_clean
    assert ledgers.keys() == before
    assert found(ledgers.merge(project="q")) == {"delivery added": 3}


def test_what_has_no_row_is_forgotten_with_force_only(ledgers: TwoLedgers) -> None:
    told = deliveries(100, "success", READ_US)
    ledgers.follow(*told[1:], EventCreated("p", ulid(READ_US, 1), READ_US, "S"))
    ledgers.hook(*told, *(EventCreated("p", name, READ_US, "S") for name in (ulid(READ_US, 1), ulid(READ_US, 2), "e")))
    for is_dry in (True, False):
        report = ledgers.merge(is_dry=is_dry)
        assert report.left == {("p", "delivery without a row"): 1, ("p", "event without a row"): 2}
        assert (report.is_clean, ledgers.statuses()) == (False, {("E", "success"): 100})
    shown: list[Report] = []
    report = ledgers.merge(force=True, survey=shown.append)
    assert found(report) == found(shown[0]) == {"delivery without a row": 1, "event without a row": 2}
    assert ledgers.statuses() == {("E", "success"): 99}
    assert ledgers.merge(force=True, survey=shown.append).is_clean
    assert len(shown) == 1
    ledgers.assert_counts_add_up()


@pytest.mark.parametrize("ago_us", [0, 2 * SECOND_US])
def test_what_hooks_told_after_the_rows_were_read_is_never_forgotten(ledgers: TwoLedgers, ago_us: int) -> None:
    ledgers.sweep(NOW_US)
    ledgers.hook(*deliveries(1, "processing", NOW_US - ago_us), EventCreated("p", ulid(NOW_US, 1), NOW_US - ago_us))
    report = ledgers.merge(force=True)
    assert report.moving == {("p", "delivery without a row"): 1, ("p", "event without a row"): 1}
    assert ledgers.statuses() == {("E", "processing"): 1}


def test_an_old_clone_of_the_database_changes_nothing(redis_server: RedisServer) -> None:
    """It was cloned a day ago, and is followed as if it were the database: its rows are read now, as they were then."""
    ledgers = TwoLedgers(redis_server, swept_us=NOW_US)
    ids = [ulid(NOW_US - DAY_US - number * SECOND_US, number) for number in range(100)]
    new = [ulid(NOW_US - HOUR_US - number * SECOND_US, number) for number in range(50)]
    for id_ in ids:
        ledgers.follow(DeliveryRead("p", id_, "processing", NOW_US - 10 * SECOND_US, "E", "t", "S"))
        ledgers.hook(
            StatusSet("p", id_, "processing", NOW_US - DAY_US, "E", "t", "S"),
            StatusSet("p", id_, "success", NOW_US - DAY_US + HOUR_US),
        )
    ledgers.hook(*(StatusSet("p", id_, "success", NOW_US - HOUR_US, "E", "t", "S") for id_ in new))
    before = ledgers.keys()
    report = ledgers.merge()
    assert report.reasons == ["p: 100 of 100 statuses would change, which is more than 5%"]
    assert report.left["p", "delivery without a row"] == 50
    assert ledgers.keys() == before
    ledgers.close()


def test_a_clone_with_two_days_of_rows_closes_no_days(ledgers: TwoLedgers) -> None:
    """Its partitions begin two days ago, so all days before are gone from it."""
    for days_ago in range(30):
        ledgers.hook(*deliveries(2, "success", READ_US - days_ago * DAY_US, days_ago=days_ago))
    through = day_of(NOW_US - 2 * DAY_US)
    ledgers.follow(
        *deliveries(2, "success", READ_US), *deliveries(2, "success", READ_US, days_ago=1), DayExpired("p", through)
    )
    before = ledgers.keys()
    report = ledgers.merge()
    [reason] = report.reasons
    assert f"days up to {through} would expire for good" in reason
    assert ledgers.keys() == before


def test_the_end_of_one_day_is_carried(ledgers: TwoLedgers) -> None:
    for days_ago in (0, 1, 2):
        for tell in (ledgers.hook, ledgers.follow):
            tell(*deliveries(2, "success", READ_US, days_ago=days_ago))
    ledgers.follow(DayExpired("p", day_of(NOW_US - 2 * DAY_US)))
    assert found(ledgers.merge()) == {"expired day": 1}
    assert ledgers.statuses() == {("E", "success"): 4}
    assert found(ledgers.merge()) == {}


class KilledError(Exception):
    """As if the process had ended."""


@pytest.mark.parametrize("writes", range(6))
def test_killed_half_way_and_run_again_it_ends_the_same(
    ledgers: TwoLedgers, monkeypatch: pytest.MonkeyPatch, writes: int
) -> None:
    told: list[Record] = []
    for days_ago in range(4):
        told += deliveries(3, "processing", READ_US, days_ago=days_ago)
    ledgers.follow(*told, *(EventCreated("p", ulid(NOW_US - HOUR_US, number), READ_US, "S") for number in range(5)))
    ledgers.hook(*deliveries(2, "scheduled", READ_US - HOUR_US))
    real, left = Side.write, writes

    def write(side: Side, records: Sequence[Record]) -> int:
        nonlocal left
        if side is ledgers.hooks and left == 0:
            raise KilledError
        left -= 1
        return real(side, records)

    monkeypatch.setattr(Side, "write", write)
    try:
        ledgers.merge(force=True)
    except KilledError:
        assert ledgers.families() != ledgers.families(of_rows=True)
    monkeypatch.setattr(Side, "write", real)
    assert ledgers.merge(force=True).is_clean
    assert ledgers.families() == ledgers.families(of_rows=True)
    assert found(ledgers.merge()) == {}
    ledgers.assert_counts_add_up()


def test_a_merge_stops_where_more_changes_than_was_seen(ledgers: TwoLedgers, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database behind the follower is exchanged between the look and the merge."""
    ledgers.hook(*deliveries(100, "processing", READ_US - HOUR_US))
    ledgers.follow(*deliveries(100, "processing", READ_US), *deliveries(1, "success", READ_US + 1))
    real, times = Side.states, 0

    def states(side: Side, *arguments: object) -> object:
        nonlocal times
        times += side is ledgers.hooks
        if times == 2:  # the second pass begins
            times += 1
            ledgers.follow(*deliveries(100, "failure", READ_US + 2))
        return real(side, *arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(Side, "states", states)
    report = ledgers.merge()
    monkeypatch.setattr(Side, "states", real)
    assert ledgers.statuses().get(("E", "failure"), 0) <= 5, report
