"""Settled days, of which counts are left and the deliveries that are not final: one ledger's against the other's."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from otel_queue.ledger.counts import EVENTS, DayCounts, Opened
from otel_queue.ledger.identity import day_of
from otel_queue.ledger.keys import SETTLED
from otel_queue.ledger.merge.side import Side
from otel_queue.ledger.merge.words import Rest, Word, delivery_word
from otel_queue.ledger.project import PROCESSING, Labels
from otel_queue.ledger.states import DeliveryState, delivery_state
from otel_queue.ulid import ulid_of

_UNTOLD: Final = Labels(None, None, None)


class Change(NamedTuple):
    """What is to be put in the place of a settled day, which had this score (None: it was not there).

    `changed` deliveries count elsewhere in it; `forgotten` deliveries and events have no row.
    """

    day: str
    wanted: DayCounts
    score: float | None
    changed: int
    forgotten: int


@dataclass(slots=True)
class Differences:
    """Of the settled days of a project: changes to be put, and days that cannot be judged now, or only later.

    `held` is how many deliveries the ledger counts in those that were compared.
    """

    changes: list[Change] = field(default_factory=list)
    moving: list[str] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    held: int = 0


class SettledDays:
    """The settled days of a project in both ledgers, as they are when this is made."""

    def __init__(self, rows: Side, hooks: Side, project: str, rest: Rest) -> None:
        self._rows = rows
        self._hooks = hooks
        self._project = project
        self._rest = rest
        # The scores first: what changes after them is noticed when a day is put.
        self._scores, self._listed = hooks.scores(project), rows.scores(project)
        self._marks, self._marks_of_rows = hooks.marks_of(project), rows.marks_of(project)
        self._said, self._labels_said = self._open(rows)
        self._held, self._labels_held = self._open(hooks)

    def words(self) -> Iterator[tuple[bytes, Word]]:
        """What is to be recorded of the deliveries that both ledgers know singly, by stored id."""
        for id_ in sorted(self._said.keys() & self._held.keys()):
            row, held = self._said[id_], self._held[id_]
            labels = self._labels_said.get(row.group) or _UNTOLD
            text, held_labels = ulid_of(int.from_bytes(id_, "big")), self._labels_held.get(held.group)
            yield id_, delivery_word(self._project, text, row, labels, held, held_labels, self._rest)

    def differences(self) -> Differences:
        """Compares the days by labels; writes nothing."""
        found = Differences()
        rows, hooks = self._marks_of_rows, self._marks
        expired, settled = max(rows.expired, hooks.expired), max(rows.settled, hooks.settled)
        folded = max(rows.folded, hooks.folded)
        for day in sorted({*self._listed, *self._scores} - {SETTLED}):
            if not max(expired, folded) < day <= settled:
                continue
            if day > rows.settled or (day > hooks.settled and day in self._scores):
                found.moving.append(day)  # one of the ledgers still has its ids
            else:
                self._compare(found, day)
        if rows.folded or hooks.folded:
            has_none = not hooks.folded and not any(day <= rows.folded for day in self._scores)
            if rows.folded == hooks.folded or has_none:
                self._compare(found, SETTLED)
            else:
                found.moving.append(SETTLED)
        return found

    def _compare(self, found: Differences, day: str) -> None:
        said, held = self._of_day(self._said, day), self._of_day(self._held, day)
        ended, opened = held.keys() - said.keys(), said.keys() - held.keys()
        wanted = self._rows.counts(self._project, day)
        counted = self._hooks.counts(self._project, day).counts
        found.held += _deliveries(counted)
        if wanted.counts == counted and not ended and not opened:
            return
        moves = any(not self._rest.is_settled(held[id_].status_us) for id_ in ended)
        if moves or any(said[id_].rank != held[id_].rank for id_ in said.keys() & held.keys()):
            found.moving.append(day)
        elif opened and day in self._scores:
            # A hook may have told that it is final, later than the follower read: nothing is kept of that.
            found.left.append(day)
        else:
            found.changes.append(self._change(day, wanted, counted, said, ended))

    def _change(
        self,
        day: str,
        wanted: DayCounts,
        counted: Counter[tuple[str, str]],
        said: dict[bytes, DeliveryState],
        ended: set[bytes],
    ) -> Change:
        for id_, row in said.items():
            held = self._held.get(id_)
            told_us = held.status_us if held else self._rest.status_us(row.status_us, 0) or 1
            labels = self._rows.group(self._project, row.group)
            wanted.opened[id_] = Opened(labels, row.rank, told_us, row.created_us)
        # As they are known from now on: a later record takes the delivery from there.
        known = {id_ for id_, row in said.items() if row.rank == PROCESSING}
        wanted.processing = {each for each in wanted.processing if each[2] not in known} | {
            (wanted.opened[id_].group, said[id_].created_us, id_) for id_ in known
        }
        wanted.ended = ended
        gone = counted - wanted.counts
        deliveries = max(_deliveries(counted) - _deliveries(wanted.counts), 0)
        events = max(sum(_events(counted).values()) - sum(_events(wanted.counts).values()), 0)
        return Change(day, wanted, self._scores.get(day), _deliveries(gone) - deliveries, deliveries + events)

    def _of_day(self, states: dict[bytes, DeliveryState], day: str) -> dict[bytes, DeliveryState]:
        folded = self._marks_of_rows.folded
        return {
            id_: state
            for id_, state in states.items()
            if (of := day_of(int.from_bytes(id_[:6], "big") * 1000)) == day or (day == SETTLED and of <= folded)
        }

    def _open(self, side: Side) -> tuple[dict[bytes, DeliveryState], dict[int, Labels]]:
        states = {id_: delivery_state("", id_, state) for id_, state in side.open(self._project)}
        return states, side.labels(self._project, {state.group for state in states.values()})


def _deliveries(counts: Counter[tuple[str, str]]) -> int:
    return sum(count for (_, kind), count in counts.items() if kind != EVENTS)


def _events(counts: Counter[tuple[str, str]]) -> Counter[str]:
    return Counter({group: count for (group, kind), count in counts.items() if kind == EVENTS})
