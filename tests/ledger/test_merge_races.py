"""Merging while hooks write: whatever they told, and whenever the merge runs, it ends as if they alone had told."""

import random
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from otel_queue.ledger.identity import identify
from otel_queue.ledger.merge.side import Side
from otel_queue.ledger.tracked import Place
from otel_queue.lifecycle import STATUSES, DeliveryCreated, DeliveryRead, Record, StatusSet
from tests.ledger.ledgers import now_us, ulid
from tests.ledger.merging import HOUR_US, SECOND_US, SKEW_US, TwoLedgers, found
from tests.servers.redis import RedisServer

NOW_US = now_us()
START_US = NOW_US - HOUR_US
END_US = NOW_US - 60 * SECOND_US
LOOK_US = 15 * SECOND_US


@pytest.fixture
def ledgers(redis_server: RedisServer) -> Iterator[TwoLedgers]:
    opened = TwoLedgers(redis_server)
    yield opened
    opened.close()


class Write(NamedTuple):
    """One write of a row, what its hook tells of it by a clock that may be off, and when that arrives, if it does."""

    at_us: int
    status: str
    record: DeliveryCreated | StatusSet
    arrives_us: int | None


def history(chance: random.Random, number: int, *, loss: float) -> list[Write]:
    """The writes of one delivery: its creation, and some statuses, seconds or minutes apart."""
    at_us = START_US + chance.randrange(600) * SECOND_US
    id_, writes = ulid(at_us, number), list[Write]()
    for step in range(chance.randrange(1, 6)):
        status = STATUSES[0] if step == 0 else chance.choice(STATUSES)
        told_us = at_us + chance.randrange(-SKEW_US, SKEW_US)
        # Its hook's clock orders the writes of a row as they were: each reads what the one before it wrote.
        told_us = max(told_us, writes[-1].record.time_us + 1) if writes else told_us
        if step == 0:
            record: DeliveryCreated | StatusSet = DeliveryCreated(
                "p", id_, told_us, "E", "t", "S", created_us=at_us + 200
            )
        else:
            record = StatusSet("p", id_, status, told_us, "E", "t", "S")
        delay_us = chance.choice((0, 100_000, SECOND_US, 20 * SECOND_US, 300 * SECOND_US))
        writes.append(Write(at_us, status, record, None if chance.random() < loss else at_us + delay_us))
        at_us += chance.choice((1_000, 200_000, SECOND_US, 4 * SECOND_US, 30 * SECOND_US, 400 * SECOND_US))
    return writes


class World:
    """A database, hooks and a follower, played up to a moment. Their times are long past, so no clock is waited for."""

    def __init__(self, ledgers: TwoLedgers, chance: random.Random, *, loss: float) -> None:
        self.ledgers = ledgers
        self.histories = [history(chance, number, loss=loss) for number in range(40)]
        self.arrived_us = 0
        self.seen: dict[int, tuple[str, bool]] = {}

    def play(self, until_us: int, look_us: int) -> None:
        """Lets hooks tell what has arrived, and the follower look."""
        for writes in self.histories:
            for write in writes:
                if write.arrives_us is not None and self.arrived_us <= write.arrives_us < until_us:
                    self.ledgers.hook(write.record)
        self.arrived_us = until_us
        for number, writes in enumerate(self.histories):
            made = [write for write in writes if write.at_us < look_us]
            # A row that was updated is not as it was created, though its status may be the same.
            if made and self.seen.get(number) != (now := (made[-1].status, len(made) > 1)):
                self.seen[number] = now
                created_us, id_ = writes[0].at_us, writes[0].record.delivery_id
                if len(made) == 1:
                    row: Record = DeliveryCreated("p", id_, look_us, "E", "t", "S", created_us=created_us)
                else:
                    row = DeliveryRead("p", id_, made[-1].status, look_us, "E", "t", "S", created_us=created_us)
                self.ledgers.follow(row)

    def told_last(self) -> dict[str, str]:
        """The rows whose last write until now a hook has told."""
        found: dict[str, str] = {}
        for writes in self.histories:
            made = [write for write in writes if write.at_us < self.arrived_us]
            if made and made[-1].arrives_us is not None and made[-1].arrives_us < self.arrived_us:
                found[made[-1].record.delivery_id] = made[-1].status
        return found

    def truth(self) -> dict[str, str]:
        return {writes[0].record.delivery_id: writes[-1].status for writes in self.histories}

    def held(self) -> dict[str, str]:
        held: dict[str, str] = {}
        for day in {identify(id_).day for id_ in self.truth()}:
            place = Place("delivery", "p", day)
            for chunk in self.ledgers.hooks.chunks(place):
                for each in chunk:
                    held[each.text] = STATUSES[each.state[0] % 8 - 1]
        return held


@pytest.mark.parametrize("seed", range(20))
def test_what_a_hook_told_of_a_rows_last_write_stands_after_a_merge_at_any_moment(
    ledgers: TwoLedgers, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """What hooks tell arrives before the look, between it and the merge, in the middle of the merge, and after it."""
    chance = random.Random(seed)
    world = World(ledgers, chance, loss=0)
    real = Side.write
    moment_us = look_us = START_US

    def write(side: Side, records: list[Record]) -> int:
        # What was compared a moment ago has changed by now.
        if side is ledgers.hooks and not is_telling:
            tell(moment_us + 20 * SECOND_US)
        return real(side, records)

    is_telling = False

    def tell(until_us: int) -> None:
        nonlocal is_telling
        is_telling = True
        world.play(until_us, look_us)
        is_telling = False

    monkeypatch.setattr(Side, "write", write)
    while moment_us < END_US:
        moment_us += chance.choice((LOOK_US, 4 * LOOK_US, 40 * LOOK_US))
        # The follower lags behind.
        look_us = moment_us - chance.choice((0, LOOK_US, 4 * LOOK_US))
        tell(moment_us)
        ledgers.sweep(chance.choice((1, look_us - 20 * LOOK_US, look_us)))
        ledgers.merge(force=True)
        held = world.held()
        assert {id_: held.get(id_) for id_ in world.told_last()} == world.told_last()
    monkeypatch.setattr(Side, "write", real)
    world.play(now_us(), look_us)
    assert world.held() == world.truth()
    ledgers.assert_counts_add_up()


@pytest.mark.parametrize("seed", range(20))
def test_where_hooks_lose_much_the_last_merge_leaves_no_difference(ledgers: TwoLedgers, seed: int) -> None:
    chance = random.Random(seed)
    world = World(ledgers, chance, loss=0.3)
    moment_us = START_US
    while moment_us < END_US:
        moment_us += chance.choice((4 * LOOK_US, 40 * LOOK_US))
        world.play(moment_us, moment_us)
        ledgers.sweep(moment_us)
        ledgers.merge(force=True)
    world.play(now_us() - SECOND_US, now_us() - 4 * SECOND_US)
    ledgers.sweep(now_us() - SECOND_US)
    report = ledgers.merge(force=True)
    left = {id_ for id_, status in world.truth().items() if world.held().get(id_) != status}
    assert not left, report
    assert found(ledgers.merge(force=True)) == {}
    ledgers.assert_counts_add_up()
