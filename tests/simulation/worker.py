"""A process that records: its writer's threads are steps of the schedule."""

from collections.abc import Callable

from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.lifecycle import Record
from tests.simulation.network import Link


class SteppedWriter(BufferedWriter):
    """A buffered writer that does in one thread what it does in two."""

    def _start(self, run: Callable[[], None]) -> None:
        return None

    def turn(self) -> None:
        """One turn of the thread that writes what is not known to fail."""
        self._write_oldest()
        self._announce()

    def retry(self) -> None:
        """One turn of the thread that tries what failed."""
        self._write_failing()
        self._announce(is_retry=True)

    def untried(self) -> list[Record]:
        """What it has of projects, on servers, that did not fail."""
        lanes = self._lanes
        return [
            record
            for record in self._queue
            if record.project not in lanes._lanes and not lanes.is_down(self._store.place(record.project))
        ]

    def records(self) -> list[Record]:
        """All that it would take with it if it died."""
        return [*self._queue, *(record for lane in self._lanes._lanes.values() for record in lane.records)]

    def is_done(self) -> bool:
        """Whether all is written and announced."""
        return not (len(self) or self._unannounced)


class Worker:
    """Records that are `accepted` are to reach a server, unless the process dies or says that it dropped them."""

    def __init__(self, name: str, link: Link, *, waits: bool, most_records: int) -> None:
        self.name = name
        store = LedgerStore(link)
        self.buffer = SteppedWriter(store, most_records=most_records, flush_at_exit=False)
        self._writer = SyncWriter(store, self.buffer) if waits else self.buffer
        self.accepted: list[Record] = []

    def tell(self, record: Record) -> None:
        """Has the writer take the record, as a hook does."""
        dropped = self.buffer.dropped
        self._writer.write([record])
        if self.buffer.dropped == dropped:
            self.accepted.append(record)

    def answered(self) -> list[Record]:
        """The records that it accepted and does not hold any more."""
        held = {id(record) for record in self.buffer.records()}
        return [record for record in self.accepted if id(record) not in held]
