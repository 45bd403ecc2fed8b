"""One pass over two ledgers, project by project and day by day, some ids at a time: what differs, and its merging."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Final

from otel_queue.errors import OtelQueueError
from otel_queue.ledger.contract import Contract
from otel_queue.ledger.identity import end_of
from otel_queue.ledger.merge.report import Report
from otel_queue.ledger.merge.settled import Change, SettledDays
from otel_queue.ledger.merge.side import KnownId, Side, tracked_days
from otel_queue.ledger.merge.words import AS_CREATED, STATUS, Rest, Word, delivery_word, event_word
from otel_queue.ledger.project import Labels
from otel_queue.ledger.states import delivery_state, event_state
from otel_queue.ledger.tracked import Kind, Place
from otel_queue.lifecycle import AttemptMade, DayExpired, ProjectDescribed, Record
from otel_queue.plural import number_of

GONE: Final = {"delivery": "delivery without a row", "event": "event without a row"}
_KINDS: Final[tuple[Kind, ...]] = ("delivery", "event", "attempt")
_UNTOLD: Final = Labels(None, None, None)
# So many attempts' ids have to be met before hooks can be said to tell others than the rows have.
_FEW_ATTEMPTS: Final = 20
_TRIES: Final = 3


class TooMuchError(OtelQueueError):
    """More statuses of a project change than are allowed without force."""


class Pass:
    """Compares projects, and merges what differs unless the report is of a dry run.

    `allowed` is how many statuses of a project may change, None for any number. `places` are what a project differs in.
    """

    def __init__(
        self,
        rows: Side,
        hooks: Side,
        contract: Contract,
        rest: Rest,
        report: Report,
        *,
        force: bool,
        allowed: int | None,
        with_attempts: bool,
        advance: Callable[[int, str], None] | None,
    ) -> None:
        self._rows = rows
        self._hooks = hooks
        self._contract = contract
        self._rest = rest
        self._report = report
        self._force = force
        self._allowed = allowed
        self._kinds = _KINDS if with_attempts else _KINDS[:2]
        self._advance = advance
        self.places: dict[str, set[Place]] = {}
        self._with_rows = frozenset(rows.projects())

    def take(self, project: str, only: set[Place] | None = None) -> None:
        """Compares a project, or only those of its places."""
        self._describe(project)
        self._expire(project)
        for kind in self._kinds:
            for day in self._days(project, kind):
                place = Place(kind, project, day)
                if only is None or place in only:
                    self._take_place(place)
        self._take_settled(project)
        if "attempt" in self._kinds:
            self._begin_attempts(project)

    def _days(self, project: str, kind: Kind) -> list[str]:
        attempt_days = self._contract.rules[-1].attempt_days
        return tracked_days(self._rows, self._hooks, project, kind, self._rest.now_us, attempt_days)

    def _describe(self, project: str) -> None:
        [said], [held] = (side.descriptions([project]) for side in (self._rows, self._hooks))
        if said.names != held.names and (said.time_us, said.names) > (held.time_us, held.names):
            self._merged(project, "description")
            self._write(project, [ProjectDescribed(project, said.time_us, *said.names)])

    def _expire(self, project: str) -> None:
        through = self._rows.marks_of(project).expired
        if through <= self._hooks.marks_of(project).expired:
            return
        days = [day for day in self._hooks.days(project) if day <= through]
        if len(days) > 1:
            self._report.reasons.append(
                f"{project}: {number_of(len(days), 'day')} up to {through} would expire for good"
            )
        self._merged(project, "expired day", len(days) or 1)
        self._write(project, [DayExpired(project, through)])

    def _take_place(self, place: Place) -> None:
        matched = 0
        for chunk in self._rows.chunks(place):
            is_closed, states = self._hooks.states(place, chunk)
            matched += len(states) - states.count(None)
            if place.kind == "delivery":
                self._report.held[place.project] += len(states) - states.count(None)
            records: list[Record] = []
            for word, state in zip(self._words(place, chunk, states), states, strict=True):
                records += self._judged(place, word, is_late=is_closed and state is None)
            self._write(place.project, records)
            if self._report.is_dry:
                self._report.compared[place.kind] += len(chunk)
            if self._advance is not None:
                self._advance(len(chunk), f"{place.project} {place.day}")
        if place.kind == "attempt":
            if self._report.is_dry:
                self._refuse_other_attempts(place)
        elif self._hooks.counted(place) > matched:
            self._take_gone(place)

    def _words(self, place: Place, chunk: Sequence[KnownId], states: Sequence[bytes | None]) -> Iterator[Word]:
        """What each id of the rows is to be told with."""
        project, day = place.project, place.day
        stored = [each.identity.stored for each in chunk]
        if place.kind == "attempt":
            for each, state, labels in zip(chunk, states, self._rows.labels_of_attempts(place, chunk), strict=True):
                yield _attempt_word(project, each, labels) if state is None else Word()
        elif place.kind == "event":
            said = [event_state(day, id_, each.state) for id_, each in zip(stored, chunk, strict=True)]
            held = [event_state(day, id_, state) if state else None for id_, state in zip(stored, states, strict=True)]
            sources = self._rows.sources(project, {row.group for row in said})
            kept = self._hooks.sources(project, {each.group for each in held if each})
            for each, row, of in zip(chunk, said, held, strict=True):
                yield event_word(
                    project, each.text, row, sources.get(row.group), of, kept.get(of.group) if of else None
                )
        else:
            rows = [delivery_state(day, id_, each.state) for id_, each in zip(stored, chunk, strict=True)]
            known = [
                delivery_state(day, id_, state) if state else None for id_, state in zip(stored, states, strict=True)
            ]
            told = self._rows.labels(project, {row.group for row in rows})
            labelled = self._hooks.labels(project, {each.group for each in known if each})
            for each, of_row, of_hooks in zip(chunk, rows, known, strict=True):
                held_labels = labelled.get(of_hooks.group) if of_hooks else None
                of_row_labels = told.get(of_row.group) or _UNTOLD
                yield delivery_word(project, each.text, of_row, of_row_labels, of_hooks, held_labels, self._rest)

    def _judged(self, place: Place, word: Word, *, is_late: bool) -> list[Record]:
        """Counts what a word says; the record that is to be written for it, if any."""
        project = place.project
        if word.is_moving or word.whats:
            self.places.setdefault(project, set()).add(place)
        if word.is_moving:
            self._report.moving[project, place.kind] += 1
        elif word.whats and is_late:
            self._report.beyond[project, place.kind] += 1
        else:
            for what in word.whats:
                if what == AS_CREATED or word.record is None:
                    self._report.left[project, what] += 1
                else:
                    self._merged(project, what)
            self._report.changed[project] += STATUS in word.whats
            if word.record is not None:
                return [word.record]
        return []

    def _merged(self, project: str, what: str, count: int = 1) -> None:
        self._report.merged[project, what] += count

    def _write(self, project: str, records: Sequence[Record]) -> None:
        if self._report.is_dry or not records:
            return
        self._refuse_too_much(project)
        late = self._hooks.write(records)
        if late:
            self._report.moving[project, "records of days that were closed meanwhile"] += late

    def _refuse_too_much(self, project: str) -> None:
        if self._allowed is not None and self._report.changed[project] > self._allowed:
            raise TooMuchError(f"{project}: more statuses differ than a moment ago; look at it with --dry-run")

    def _take_gone(self, place: Place) -> None:
        """Forgets what the rows' ledger has not, if it is allowed to."""
        what = GONE[place.kind]
        for chunk in self._hooks.chunks(place):
            _, states = self._rows.states(place, chunk)
            gone = [each for each, state in zip(chunk, states, strict=True) if state is None]
            at_rest = [each for each in gone if self._rest.is_settled(_told_us(place, each))]
            self._report.moving[place.project, what] += len(gone) - len(at_rest)
            if gone:
                self.places.setdefault(place.project, set()).add(place)
            if not self._force:
                self._report.left[place.project, what] += len(at_rest)
                continue
            forgotten = len(at_rest)
            if at_rest and not self._report.is_dry:
                forgotten = sum(self._hooks.forget(place, [(each.identity, each.state) for each in at_rest]))
                self._report.moving[place.project, what] += len(at_rest) - forgotten
            self._merged(place.project, what, forgotten)

    def _refuse_other_attempts(self, place: Place) -> None:
        """Raises OtelQueueError where hooks tell attempts by other ids than the rows have: each would count twice."""
        for chunk in self._hooks.chunks(place):
            old = [each for each in chunk if self._rest.is_settled(each.identity.created_us or self._rest.now_us)]
            _, states = self._rows.states(place, old) if old else (False, [])
            if len(old) >= _FEW_ATTEMPTS and states.count(None) * 2 > len(old):
                raise OtelQueueError(
                    f"{place.project} {place.day}: {states.count(None)} of {len(old)} attempts have ids without a row, "
                    "so merging would count each twice; let the hooks tell the ids of the rows, or use --no-attempts"
                )
            return

    def _take_settled(self, project: str) -> None:
        days = SettledDays(self._rows, self._hooks, project, self._rest)
        place, records = Place("delivery", project, "settled"), list[Record]()
        for _, word in days.words():
            records += self._judged(place, word, is_late=False)
        self._write(project, records)
        if records and not self._report.is_dry:
            days = SettledDays(self._rows, self._hooks, project, self._rest)
        found = days.differences()
        self._report.held[project] += found.held
        self._report.moving[project, "settled day"] += len(found.moving)
        self._report.left[project, "settled day with deliveries in flight that the ledger takes for final"] += len(
            found.left
        )
        for change in found.changes:
            self._report.changed[project] += change.changed
            if change.forgotten and not self._force:
                self._report.left[project, "settled day with more than the rows"] += 1
            else:
                self._put(project, change)

    def _put(self, project: str, change: Change) -> None:
        if not self._report.is_dry:
            self._refuse_too_much(project)
            if not self._hooks.whole_days.replace(project, change.day, change.wanted, change.score):
                self._report.moving[project, "settled day"] += 1
                return
            if change.wanted.opened:
                self._hooks.upkeep.settle(project)  # or what is open would not be found
        self._merged(project, "settled day")

    def _begin_attempts(self, project: str) -> None:
        """Counts what was made before any attempt that is known by its id, once, if the ledger began later."""
        days = self._days(project, "attempt")
        is_before = (end_of(days[0]) - 86_400) * 1_000_000 > self._contract.birth_us
        if is_before or self._hooks.attempts_before(project) or project not in self._with_rows:
            return
        before = self._attempts_before(project, days)
        self._merged(project, "attempt from before", before.total())
        if not self._report.is_dry:
            self._hooks.begin_attempts(project, days[0], before)

    def _attempts_before(self, project: str, days: Sequence[str]) -> Counter[tuple[str, str, str]]:
        before: Counter[tuple[str, str, str]] = Counter()
        for _ in range(_TRIES):
            # The total first: what is counted meanwhile is known by its id, and makes the rest too small.
            total = self._rows.attempts(project)
            known: Counter[tuple[str, str, str]] = Counter()
            for day in days:
                place = Place("attempt", project, day)
                for chunk in self._rows.chunks(place):
                    known.update(filter(None, self._rows.labels_of_attempts(place, chunk)))
            before = total - known
            if self._rows.attempts(project) == total:
                break
        return before


def _attempt_word(project: str, each: KnownId, labels: tuple[str, str, str] | None) -> Word:
    if labels is None:
        return Word(("attempt that lost its labels",))
    endpoint, status, code = labels
    made_us = each.identity.created_us or 0
    record = AttemptMade(project, each.text, made_us, endpoint, status == "success", None if code == "none" else code)
    return Word(("attempt added",), record)


def _told_us(place: Place, each: KnownId) -> int:
    state = each.state
    if place.kind == "event":
        return event_state(place.day, each.identity.stored, state).time_us
    return delivery_state(place.day, each.identity.stored, state).status_us
