"""The follower's ledger: records into it, what it holds of rows, and what it is to forget."""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Final

from otel_queue.config import Config
from otel_queue.errors import ReadError, WriteError
from otel_queue.ledger.administration import Clock
from otel_queue.ledger.connect import ledger_side, ledger_store, ledger_upkeep
from otel_queue.ledger.contract import Contract, Rule
from otel_queue.ledger.identity import Identity, day_of, identify
from otel_queue.ledger.store import OF_ONE_PROJECT, Written
from otel_queue.ledger.tracked import Held, Kind, Place
from otel_queue.ledger.upkeep import close_each
from otel_queue.lifecycle import Record

_WRITE_SECONDS: Final = 30.0
# Records that are in memory at once on their way.
_AT_ONCE: Final = 20_000
_DAY_US: Final = 86_400_000_000

Key = tuple[str, str]


@dataclass(slots=True)
class Told:
    """What became of records: how many changed the ledger, and projects that refuse theirs, each with the reason."""

    changed: int = 0
    late: int = 0
    refused: dict[str, WriteError] = field(default_factory=dict)


class Target:
    """The ledger of `config.followed`. Every method may be repeated, and raises ReadError or WriteError.

    `hold` is called between the parts of what takes long: it prolongs the follower's lease, or raises that it is lost.
    """

    def __init__(self, config: Config) -> None:
        followed = config.followed
        self._config = config
        self._store = ledger_store(followed)
        self.ids = ledger_side(followed)
        self.upkeep = self.ids.upkeep
        self._last_us = 0
        self.hold: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Begins the ledger, if it was not: under the rules of the workers' ledger, so that both can be compared."""
        try:
            self.ids.clock()
        except ReadError as error:
            if error.reason != "no_birth":
                raise
        else:
            return
        workers = ledger_upkeep(self._config)
        rules: Contract | None = None
        with suppress(ReadError, WriteError):
            rules = workers.contract()
        workers.close()
        if rules is None:
            self.upkeep.begin(Rule())
        else:
            self.upkeep.begin(rules.rules[-1], rules.max_skew_us)

    def clock(self) -> Clock:
        """The contract, and a time for records: by Redis, and later than any that was given before."""
        clock = self.ids.clock()
        self._last_us = max(self._last_us + 1, clock.now_us)
        return clock._replace(now_us=self._last_us)

    def begin_after(self, time_us: int) -> None:
        """Times that are given are later than this one."""
        self._last_us = max(self._last_us, time_us)

    def write(self, records: Iterable[Record]) -> Told:
        """Writes all records, those of a project that refuses them excepted; a failure of a server is raised."""
        told, remaining = Told(), iter(records)
        while chunk := list(islice(remaining, _AT_ONCE)):
            self.hold()
            deadline = time.monotonic() + _WRITE_SECONDS
            outcomes = self._store.write_each((each for each in chunk if each.project not in told.refused), deadline)
            for project, outcome in outcomes.items():
                if isinstance(outcome, Written):
                    told.changed += outcome.changed
                    told.late += outcome.late
                elif outcome.reason in OF_ONE_PROJECT:
                    told.refused[project] = outcome
                else:
                    raise outcome
            self._store.announce(outcomes.keys() - told.refused.keys(), deadline)
        return told

    def find(self, kind: Kind, keys: Sequence[Key]) -> list[tuple[Place, Identity, bytes | None, bool]]:
        """Where each id is kept, its state, and whether its day is closed; in the order of the keys."""
        places = [(Place(kind, project, identity.day), identity) for project, identity in _identified(keys)]
        wanted: dict[Place, list[Identity]] = {}
        for place, identity in places:
            wanted.setdefault(place, []).append(identity)
        found = self.ids.find(wanted)
        states = {place: iter(held.states) for place, held in found.items()}
        return [(place, identity, next(states[place]), _is_closed(found[place])) for place, identity in places]

    def forget(self, found: Iterable[tuple[Place, Identity, bytes]]) -> int:
        """Takes ids out that are still in the state given; how many were."""
        by_place: dict[Place, list[tuple[Identity, bytes]]] = {}
        for place, identity, state in found:
            by_place.setdefault(place, []).append((identity, state))
        return sum(sum(self.ids.forget(place, held)) for place, held in by_place.items())

    def forget_rows(self, kind: Kind, keys: Sequence[Key]) -> int:
        """Takes out what is held of rows that are gone; how many were held."""
        if not keys:
            return 0
        found = self.find(kind, keys)
        return self.forget((place, identity, state) for place, identity, state, _ in found if state)

    def held_ids(self, place: Place) -> Iterator[tuple[bytes, bytes]]:
        """Stored ids and states of all that is held in a place."""
        return self.ids.ids(place)

    def settle(self) -> dict[str, ReadError | WriteError]:
        """Ends what is due in every project: days past their tracking, undated ids, groups without a count.

        A project that refuses it holds up no other one; those are returned, each with the reason.
        """
        closed = close_each(self.upkeep.projects(), self.upkeep.settle)
        return {project: error for project, error in closed if isinstance(error, ReadError | WriteError)}

    def close(self) -> None:
        """Ends the connections; a later call opens new ones."""
        self._store.close()
        self.ids.close()


def first_day_of(clock: Clock) -> str:
    """The first day whose deliveries and events are tracked now."""
    return day_of(_midnight(clock) - clock.contract.rule_of(day_of(clock.now_us)).track_days * _DAY_US)


def first_attempt_day_of(clock: Clock) -> str:
    """The first day whose attempts are tracked now."""
    return day_of(_midnight(clock) - clock.contract.rule_of(day_of(clock.now_us)).attempt_days * _DAY_US)


def _midnight(clock: Clock) -> int:
    return clock.now_us - clock.now_us % _DAY_US


def _identified(keys: Iterable[Key]) -> Iterator[tuple[str, Identity]]:
    return ((project, identify(id_)) for project, id_ in keys)


def _is_closed(held: Held) -> bool:
    return held.is_closed
