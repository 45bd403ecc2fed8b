"""A stream of lifecycle records as hooks of many workers tell it: repeated, out of order, and with gaps."""

import dataclasses
import random
from collections.abc import Iterator
from typing import Final

from otel_queue.lifecycle import UNTOLD, AttemptMade, DeliveryCreated, EventCreated, Label, Record, StatusSet
from tests.ledger.ledgers import DAY_US, ulid

PROJECTS: Final = 20
SECOND_US: Final = 1_000_000
# How far the workers' clocks are off.
CLOCKS_US: Final = tuple(int(off * SECOND_US) for off in (-2, -1.3, -0.4, 0, 0.1, 0.7, 1.6, 2))
DUPLICATES: Final = 0.2
OUT_OF_ORDER: Final = 0.1
STARTS_LATE: Final = 1 / 3
NO_ULID: Final = 0.03


def stream(seed: int, size: int, now_us: int) -> list[Record]:
    """`size` records in the order in which they are to be written."""
    chance = random.Random(seed)
    told: list[tuple[int, Record]] = []
    while len(told) < size:
        for at, record in _Delivery(chance, now_us).records():
            told.append((_when_written(chance, at), record))
            if chance.random() < DUPLICATES / (1 - DUPLICATES):
                told.append((_when_written(chance, at), _told_again(chance, record)))
    told.sort(key=lambda item: item[0])
    return [record for _, record in told[:size]]


def _when_written(chance: random.Random, at: int) -> int:
    return at + chance.randrange(-3_600, 3_600) * SECOND_US if chance.random() < OUT_OF_ORDER else at


def _told_again(chance: random.Random, record: Record) -> Record:
    """The same thing, told by another hook: at another time, with other labels."""
    if isinstance(record, AttemptMade):
        # An attempt is told by one hook; what is repeated is its task.
        return dataclasses.replace(record, time_us=record.time_us + chance.randrange(SECOND_US))
    assert isinstance(record, EventCreated | DeliveryCreated | StatusSet)
    time_us = record.time_us + chance.randrange(-SECOND_US, SECOND_US)
    source = chance.choice((record.source, UNTOLD, "another source"))
    if isinstance(record, EventCreated):
        return dataclasses.replace(record, time_us=time_us, source=source)
    endpoint = chance.choice((record.endpoint, record.endpoint, UNTOLD, "another endpoint"))
    return dataclasses.replace(record, time_us=time_us, source=source, endpoint=endpoint)


class _Delivery:
    """One event with one delivery."""

    def __init__(self, chance: random.Random, now_us: int) -> None:
        self._chance = chance
        # Two minutes are enough for all that follows, so that no time is ahead of Redis.
        self._created_us = now_us - chance.randrange(3) * DAY_US - chance.randrange(120, 14_400) * SECOND_US
        self._at = self._created_us
        self._project = f"project-{int(PROJECTS * chance.random() ** 2)}"
        self._endpoint: Label = chance.choice((None, *(f"endpoint-{number}" for number in range(12))))
        self._event_type: Label = chance.choice((None, "paid", "sent", "lost"))
        self._source: Label = chance.choice((None, "source-1", "source-2"))
        self._id = self._new_id()

    def records(self) -> Iterator[tuple[int, Record]]:
        """With the true time of each, which is not what its hook's clock says."""
        starts_late = self._chance.random() < STARTS_LATE
        for number, record in enumerate(self._lifecycle()):
            # A recorder that starts late sees no creation: its first record is a transition.
            if not (starts_late and number < 2):
                yield self._at, record
            self._at += self._chance.randrange(1, 8 * SECOND_US)

    def _lifecycle(self) -> Iterator[Record]:
        chance = self._chance
        yield EventCreated(self._project, self._new_id(), self._told_at(), self._source)
        # The insert does not return created_at.
        yield DeliveryCreated(self._project, self._id, self._told_at(), self._endpoint, self._event_type, self._source)
        yield self._from_payload("processing")
        if chance.random() < 0.05:
            yield self._from_payload("discarded")
            return
        succeeded = chance.random() < 0.7
        yield self._attempt(succeeded)
        if not succeeded:
            yield self._from_payload("retry")
            if chance.random() < 0.1:
                yield StatusSet(self._project, self._id, "scheduled", self._told_at())  # resent in bulk
            yield self._reloaded("processing")
            if chance.random() < 0.1:
                return  # its worker died: it stays in processing
            succeeded = chance.random() < 0.6
            yield self._attempt(succeeded)
            yield self._reloaded("success" if succeeded else "failure")
        elif chance.random() < 0.95:
            yield self._from_payload("success")

    def _from_payload(self, status: str) -> StatusSet:
        """The payload of the first queue has no source and no creation time, and without a snapshot no label at all."""
        if self._chance.random() < 0.2:
            return StatusSet(self._project, self._id, status, self._told_at())
        return StatusSet(self._project, self._id, status, self._told_at(), self._endpoint, self._event_type)

    def _reloaded(self, status: str) -> StatusSet:
        """The row as the retry queue loads it, with all of its labels."""
        return StatusSet(
            self._project, self._id, status, self._told_at(), self._endpoint, self._event_type, self._source,
            self._created_us,
        )  # fmt: skip

    def _attempt(self, succeeded: bool) -> AttemptMade:
        code = "200 OK" if succeeded else self._chance.choice(("503 Service Unavailable", None))
        return AttemptMade(self._project, self._new_id(), self._told_at(), self._endpoint, succeeded, code)

    def _told_at(self) -> int:
        return self._at + self._chance.choice(CLOCKS_US)

    def _new_id(self) -> str:
        number = self._chance.getrandbits(80)
        return f"{number:032x}" if self._chance.random() < NO_ULID else ulid(self._at, number)
