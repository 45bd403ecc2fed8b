"""The shadow itself: it is there when the database is read, and compares what it read with the ledger."""

import logging
import threading
import time as clock
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

from otel_queue.catalog import CATALOG
from otel_queue.errors import ReadError
from otel_queue.ledger.families import ledger_families
from otel_queue.ledger.reader import LedgerReader
from otel_queue.samples import Family
from otel_queue.shadow.comparison import Comparison, Increases, compare
from otel_queue.shadow.entry import Entry, Standings, advance
from otel_queue.shadow.journal import Journal, Journaled
from otel_queue.shadow.legacy import name_differences
from otel_queue.shadow.tolerance import Tolerance

if TYPE_CHECKING:  # psycopg, which it needs, is an extra
    from otel_queue.postgres.aggregations import Found

_log: Final = logging.getLogger(__name__)

# Writers buffer for 0.2 s, and a hook runs after the commit that it tells of.
SETTLE_SECONDS: Final = 1.5
# A replica further behind shows a moment at which nobody looked at the ledger.
MOST_LAG_SECONDS: Final = 3.0
_LOOKS: Final = 3
# An increase needs two readings: that the first one gives none is no failure.
_FIRST_LOOK: Final = "first_look"

ReadLedger = Callable[[], Sequence[Family]]


def reading_of(reader: LedgerReader) -> ReadLedger:
    """Reads the ledger's families with all labels and nothing folded, as the database's are, of all projects.

    Raises ReadError; also where one project cannot be read, since its series would be missing.
    """

    def read() -> Sequence[Family]:
        snapshot = reader.snapshot()
        if snapshot.failures:
            reason = next(iter(snapshot.failures))
            raise ReadError(reason, f"{sum(snapshot.failures.values())} parts of the ledger cannot be read: {reason}")
        return ledger_families(snapshot).families

    return read


class Looks:
    """The ledger around one moment: read before it, at once after it, and when it has settled."""

    def __init__(
        self,
        read_ledger: ReadLedger,
        settle_seconds: float = SETTLE_SECONDS,
        wait: Callable[[float], None] = clock.sleep,
    ) -> None:
        self._read = read_ledger
        self._settle = settle_seconds
        self._wait = wait
        self._looks: list[Mapping[str, Family]] = []
        self._failed: ReadError | None = None

    def before(self) -> None:
        """Reads it the first time; forgets what it read around the moment before."""
        self.forget()
        self._look()

    def begun(self) -> None:
        """Reads it twice more, `settle_seconds` apart. Not at all if the first reading failed."""
        self._look()
        if self._failed is None:
            self._wait(self._settle)
        self._look()

    def forget(self) -> None:
        """Lets go of what was read, which may be large."""
        self._looks = []
        self._failed = None

    def _look(self) -> None:
        if self._failed is not None:
            return
        try:
            self._looks.append({family.name: family for family in self._read()})
        except ReadError as error:
            self._failed = error

    def of(self, metric: str) -> list[Family]:
        """The metric in each reading; raises ReadError if any of them failed."""
        if self._failed is not None:
            raise ReadError(f"ledger_{self._failed.reason}", str(self._failed)) from self._failed
        if len(self._looks) != _LOOKS or any(metric not in look for look in self._looks):
            raise ReadError("ledger_incomplete", f"the ledger's {metric} was not read {_LOOKS} times")
        return [look[metric] for look in self._looks]

    def compare(self, tolerance: Tolerance, database: Family, time: float, lag_seconds: float) -> Comparison:
        """A gauge compared with the database as it was at `time`; raises ReadError as `of` does.

        What a lagging replica shows is older than the first reading by the lag. A count moved by as much in that time
        as it did between the readings, so its interval grows by that share.
        """
        readings = self.of(tolerance.metric)
        span = readings[-1].time - readings[0].time
        widened = lag_seconds / span if span > 0 else 0.0
        return compare(tolerance, readings, database, time, widened=widened)


class Shadow:
    """Compares every reading of the database with the ledger, and keeps what comes of it in the journal.

    A witness of PostgresSource. `tolerances` are those of the metrics to compare. Its methods raise nothing: what
    fails is counted, by reason, in the journal where that can be written, and in `take_failures`. Not safe for
    threads, but for `take_failures`.
    """

    def __init__(
        self,
        read_ledger: ReadLedger,
        journal: Journal,
        tolerances: Mapping[str, Tolerance],
        *,
        settle_seconds: float = SETTLE_SECONDS,
        wait: Callable[[float], None] = clock.sleep,
    ) -> None:
        self._looks = Looks(read_ledger, settle_seconds, wait)
        self._journal = journal
        self._tolerances = tolerances
        self._increases = {name: Increases() for name in tolerances if CATALOG[name].kind == "counter"}
        # What we remember of more series than an entry holds, and the time of the comparison it comes from.
        self._remembered: dict[str, tuple[float, Standings]] = {}
        self._failures: Counter[str] = Counter()
        self._lock = threading.Lock()

    def before(self) -> None:
        """Just before the database's state is fixed."""
        self._guarded(self._looks.before)

    def begun(self) -> None:
        """The state is fixed: takes `settle_seconds` and two readings of the ledger."""
        self._guarded(self._looks.begun)

    def judge(self, exported: "Found", corrected: "Found", time: float, lag_seconds: float) -> None:
        """Compares, and writes the journal.

        `exported` is what the exporter shows; where that is not `corrected`, their differences are named too. `time`
        is when the database's state was fixed, in Unix seconds by the clock of the ledger's Redis.
        """
        self._guarded(lambda: self._judge(exported, corrected, time, lag_seconds))

    def take_failures(self) -> Counter[str]:
        """What has failed since the last call, by reason."""
        with self._lock:
            taken, self._failures = self._failures, Counter()
        return taken

    def _count(self, failures: Iterable[str]) -> None:
        with self._lock:
            self._failures.update(failures)

    def _guarded(self, act: Callable[[], None]) -> None:
        try:
            act()
        except ReadError as error:
            self._count([error.reason])
            _log.warning("shadow: no comparison: %s", error)
        except Exception:
            self._count(["internal"])
            _log.exception("shadow: no comparison: it failed in an unexpected way")

    def _judge(self, exported: "Found", corrected: "Found", time: float, lag_seconds: float) -> None:
        database = {family.name: family for family in corrected.families}
        # Before the journal is asked for: a counter's next increase is from here, whatever becomes of this one.
        compared: dict[str, Comparison | str] = {
            metric: self._compare(tolerance, database.get(metric), time, lag_seconds)
            for metric, tolerance in self._tolerances.items()
        }
        self._looks.forget()
        same = exported is corrected or exported.families == corrected.families
        legacy = {} if same else name_differences(exported.families, corrected.families)
        with _journal():
            held = self._journal.read()
        self._count(Counter(held.failures).elements())
        remembered: dict[str, tuple[float, Standings]] = {}
        entries: list[Entry] = []
        for metric, found in compared.items():
            entry, rule = held.entries.get(metric), self._tolerances[metric]
            if isinstance(found, str):
                if found != _FIRST_LOOK:
                    self._count([found])
                entries.append((entry or Entry(metric, rule.digest)).skip(found))
                continue
            before = self._before(metric, held)
            entry, standings = advance(entry, before, found, legacy.get(metric, {}), rule, time)
            entries.append(entry)
            remembered[metric] = time, standings
        with _journal():
            lost = self._journal.keep(entries, held)
        if lost:
            raise ReadError("journal_taken", f"{lost} entries were replaced by another exporter meanwhile")
        self._remembered |= remembered

    def _compare(
        self, tolerance: Tolerance, database: Family | None, time: float, lag_seconds: float
    ) -> Comparison | str:
        """The comparison, or the reason why there is none."""
        if database is None:
            return "postgres_failed"
        if lag_seconds > MOST_LAG_SECONDS:
            return "lagging_replica"
        try:
            if increases := self._increases.get(tolerance.metric):
                found = increases.compare(tolerance, self._looks.of(tolerance.metric), database)
                return _FIRST_LOOK if found is None else found
            return self._looks.compare(tolerance, database, time, lag_seconds)
        except ReadError as error:
            return error.reason

    def _before(self, metric: str, held: Journaled) -> Standings:
        """What we remember if the last comparison was ours, else the worst series as they were written."""
        entry = held.entries.get(metric)
        if entry is None:
            return {}
        time, remembered = self._remembered.get(metric, (None, {}))
        return remembered if time == entry.last else {item.labels: item for item in entry.worst}


@contextmanager
def _journal() -> Iterator[None]:
    """Says of a failure that it is the journal's."""
    try:
        yield
    except ReadError as error:
        raise ReadError(f"journal_{error.reason}", str(error)) from error
