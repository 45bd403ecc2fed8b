"""Records with odd ids, labels and times, through the real scripts: the ledger ends as the oracle says, or refuses."""

import contextlib
import random
import time

import pytest
from hypothesis import strategies as st

from otel_queue.errors import WriteError
from otel_queue.ledger.families import ledger_families
from otel_queue.lifecycle import (
    STATUSES,
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    DeliveryRead,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from tests.export.ways_out import CLASSIC, own_text, parsed
from tests.fuzz.budget import RECORDS, fuzzed
from tests.fuzz.odd import any_text, unicode_text
from tests.ledger.ledgers import DAY_US, Ledger, assert_same, contents, expected, now_us, ulid
from tests.servers.redis import RedisServer

pytestmark = pytest.mark.timeout(900)

NOW_US = now_us()
identifier = unicode_text.filter(bool).map(lambda text: text[:512])
text_id = st.one_of(
    identifier,
    st.integers(0, 2).map(lambda number: ulid(NOW_US - 60_000_000, number)),
    st.integers(1, 9).map(lambda days: ulid(NOW_US - days * DAY_US, days)),
    st.sampled_from(["0" * 26, "7" + "Z" * 25, "8" + "Z" * 25, ulid(NOW_US, 1).lower(), ulid(NOW_US, 1) + "0"]),
)
label = st.one_of(st.just(UNTOLD), st.none(), any_text)
# As a recorder lets them through, but not ahead of Redis, since the oracle does not clamp.
time_us = st.one_of(
    st.integers(0, 3).map(lambda step: NOW_US - step), st.sampled_from([946_684_800_000_000, NOW_US - 400 * DAY_US])
)
created = st.one_of(st.none(), time_us)
status = st.sampled_from([*STATUSES, "Success", "PROCESSING", "processing"])
http_status = st.one_of(
    st.none(), any_text, st.integers(-5, 700), st.sampled_from(["200", "200 OK", " 404", "2000", "٢٠٠", "20\n0"])
)


def records_of(project: str, id_: str) -> st.SearchStrategy[Record]:
    of, it = st.just(project), st.just(id_)
    return st.one_of(
        st.builds(EventCreated, of, it, time_us, label),
        st.builds(DeliveryCreated, of, it, time_us, label, label, label, status, created),
        st.builds(StatusSet, of, it, status, time_us, label, label, label, created),
        st.builds(DeliveryRead, of, it, status, time_us, label, label, label, created),
        st.builds(ProjectDescribed, of, time_us, any_text, any_text, any_text),
    )


@st.composite
def told(draw: st.DrawFn) -> list[Record]:
    """Records of a few ids; of each attempt one, since the first that is told stands."""
    ids = draw(st.lists(st.tuples(identifier, text_id), min_size=1, max_size=3))
    records = draw(st.lists(st.sampled_from(ids).flatmap(lambda of: records_of(*of)), min_size=1, max_size=12))
    attempts = {of: draw(st.builds(AttemptMade, *map(st.just, of), time_us, label, st.booleans(), http_status))
                for of in ids}  # fmt: skip
    return [*records, *attempts.values()]


@fuzzed(RECORDS, records=told(), chance=st.randoms(use_true_random=False))
def test_odd_records_end_as_the_oracle_says(
    redis_server: RedisServer, ledger: Ledger, records: list[Record], chance: random.Random
) -> None:
    with redis_server.client() as client:
        client.flushall()
        ledger.upkeep.begin()
        again = records * 2
        chance.shuffle(again)
        ledger.write(*again)
        for held in contents(client).values():
            held.assert_adds_up()
    snapshot = ledger.snapshot()
    assert snapshot.failures == {}
    found = ledger_families(snapshot).families
    assert_same({family.name: dict(family.samples) for family in found}, expected(records, snapshot.time))
    assert sum(map(len, parsed(own_text(CLASSIC, *found)).values())) == 2 + sum(len(each.samples) for each in found)
    assert ledger.differences() == []


odd_time = st.sampled_from([0, -1, 1, 2**31, 2**53, 2**53 + 1, 2**56, 2**62, 4_102_444_800_000_000, NOW_US * 1000])
odd_record = st.one_of(
    st.builds(EventCreated, identifier, text_id, odd_time, label),
    st.builds(StatusSet, identifier, text_id, status, odd_time, label, label, label, st.one_of(st.none(), odd_time)),
    st.builds(DeliveryCreated, identifier, text_id, odd_time, label, label, label, status, odd_time),
    st.builds(DayExpired, identifier, st.sampled_from(["20260101", "2026-11-24", "", "zzz", "\0", "99999999"])),
    st.builds(ProjectDescribed, identifier, odd_time, any_text, any_text, any_text),
)


@fuzzed(RECORDS // 2, records=st.lists(odd_record, min_size=1, max_size=6))
def test_times_and_days_that_no_recorder_lets_through_leave_a_ledger_that_can_be_read(
    redis_server: RedisServer, ledger: Ledger, records: list[Record]
) -> None:
    """Whoever writes past the recorder, in another language perhaps, is refused or clamped; others are not harmed."""
    with redis_server.client() as client:
        client.flushall()
    ledger.upkeep.begin()
    ledger.write(StatusSet("whole", "d", "success", NOW_US, "E", "t", "S"))
    whole = ledger.families()
    for record in records:
        with contextlib.suppress(WriteError):
            ledger.store.write([record], time.monotonic() + 30.0)
    snapshot = ledger.snapshot()
    # A project of which nothing was told but what is refused is registered all the same.
    assert set(snapshot.failures) <= {"project_lost"}
    found = ledger_families(snapshot).families
    for family in found:
        own = {values: value for values, value in family.samples if values[0] == "whole"}
        assert own == whole[family.name]
        assert all(0 <= value < 1e12 for _, value in family.samples)
    parsed(own_text(CLASSIC, *found))
