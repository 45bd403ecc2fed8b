"""What is in the ledger in the end, against what was told."""

from collections import Counter
from collections.abc import Iterable
from typing import Final

from otel_queue.config import Config, LedgerConfig
from otel_queue.ledger.connect import ledger_tracked
from otel_queue.ledger.identity import Identity, identify
from otel_queue.ledger.tracked import Kind, Place
from tests.ledger.ledgers import Ledger, families_of, now_us
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, EVENTS, Families, Oracle
from tests.soak.exactness import later_by, wrong_series
from tests.soak.whole.tasks import Schedule, Told

COUNTS: Final = (EVENTS, DELIVERIES, ATTEMPTS)


class Verdict:
    """Compares with the oracle the tasks with numbers below `told`; counted are events, deliveries and attempts."""

    def __init__(self, url: str, schedule: Schedule, told: int) -> None:
        self._ledger = Ledger(url)
        self._tasks = [schedule.task(number) for number in range(told)]
        self._oracle = self._of_all()

    @property
    def series(self) -> int:
        return sum(map(len, self._oracle.values()))

    def records(self) -> int:
        """How many all tasks have."""
        return sum(len(task.calls) for task in self._tasks)

    def missing(self) -> int:
        """How many are told and not in the ledger."""
        found = _totals(families_of(self._ledger.snapshot()))
        return int(sum(max(0.0, count - found[key]) for key, count in _totals(self._oracle).items()))

    def unheld(self, numbers: Iterable[int]) -> int:
        """How many of these tasks the ledger does not hold, asked id by id."""
        wanted: dict[Place, list[Identity]] = {}
        for number in numbers:
            for kind, id in _ids(self._tasks[number]):
                identity = identify(id)
                wanted.setdefault(Place(kind, self._tasks[number].project, identity.day), []).append(identity)
        tracked = ledger_tracked(Config(ledger=LedgerConfig(url=self._ledger.url)))
        try:
            held = tracked.find(wanted)
        finally:
            tracked.close()
        return sum(state is None for place in held.values() for state in place.states)

    def wrong(self, *, exact_only: bool = False) -> list[str]:
        """The series that are not as the oracle says."""
        snapshot = self._ledger.snapshot()
        ours, its = families_of(snapshot), later_by(self._oracle, snapshot.time)
        if exact_only:
            ours, its = _of_exact(ours), _of_exact(its)
        return wrong_series("exact projects" if exact_only else "all projects", ours, its)

    def differences(self) -> list[str]:
        """What `ledger check` finds."""
        return [f"check: {difference}" for difference in self._ledger.differences()]

    def attempts(self) -> float:
        """As the ledger has them."""
        return sum(families_of(self._ledger.snapshot())[ATTEMPTS].values())

    def close(self) -> None:
        self._ledger.close()

    def _of_all(self) -> Families:
        """As of the Unix epoch; project by project, so that not all records are held at once."""
        projects: dict[str, list[Told]] = {}
        for task in self._tasks:
            projects.setdefault(task.project, []).append(task)
        found: Families = {}
        now = now_us() / 1e6
        for its in projects.values():
            oracle = Oracle(now)
            for task in its:
                for record in task.plain():
                    oracle.take(record)
            for name, samples in later_by(oracle.families(), -now).items():
                found.setdefault(name, {}).update(samples)
        return found


def _ids(task: Told) -> Iterable[tuple[Kind, str]]:
    for kind, told in task.calls:
        match kind:
            case "event_created":
                yield "event", told["event_id"]
            case "delivery_created":
                yield "delivery", told["delivery_id"]
            case "attempt_made":
                yield "attempt", told["attempt_id"]


def _totals(families: Families) -> Counter[tuple[str, str]]:
    """By metric and project."""
    found: Counter[tuple[str, str]] = Counter()
    for name in COUNTS:
        for labels, count in families[name].items():
            found[name, labels[0]] += int(count)
    return found


def _of_exact(families: Families) -> Families:
    return {
        name: {labels: value for labels, value in samples.items() if labels[0].startswith("exact")}
        for name, samples in families.items()
    }
