"""A process that reads the ledger and exports it, and what must hold for whatever it shows."""

from collections.abc import Callable
from typing import Any

from otel_queue.errors import ReadError
from otel_queue.ledger.families import ledger_families, tally_families
from otel_queue.ledger.held import HeldCounters
from otel_queue.ledger.project import Project
from otel_queue.ledger.reader import LedgerReader, LedgerSnapshot
from tests.simulation import project as held_project
from tests.simulation.network import Acting, BrokenError, Link, Network


class Exporter:
    """Reads, compares what it read with the references, and remembers what it has shown."""

    def __init__(self, network: Network, link: Link, trace: Callable[[bytes], None]) -> None:
        self._network = network
        self._trace = trace
        self._reader = LedgerReader(link)
        self._held = HeldCounters()
        self._shown: dict[tuple[str, ...], float] = {}
        self._birth_us = 0
        self._reads_in_a_row = 0
        self._faults_seen = -1

    def read(self, acting: Acting) -> None:
        """Raises BrokenError for what must not be."""
        is_the_same = self._faults_seen == self._network.fault_changes
        self._faults_seen = self._network.fault_changes
        before, self._reads_in_a_row = self._reads_in_a_row, 0
        try:
            snapshot = self._reader.snapshot()
        except ReadError as error:
            self._trace(error.reason.encode())
            if acting.is_alone and self._can_be_read():
                raise BrokenError(f"the ledger cannot be read: {error}") from error
            return
        self._reads_in_a_row = before + 1 if is_the_same and acting.is_alone else 0
        self._trace(repr(_told_by(snapshot)).encode())
        self._show(snapshot)
        # A node that does not answer may use up the time of two reads, where others had failed before, and no more.
        if acting.is_alone and (self._can_be_read() or self._reads_in_a_row > 1):
            self._compare(snapshot)

    def _can_be_read(self) -> bool:
        network = self._network
        return not network.faults and not network.damaged and network.has_contract()

    def _compare(self, snapshot: LedgerSnapshot) -> None:
        """What was read is what the servers hold now, and nothing that can be read is missing."""
        network, read = self._network, {project.project: project for project in snapshot.projects}
        for name in network.references[0].announced:
            number = network.home(name).number
            held = network.references[number].projects.get(name)
            if network.faults.get(number) or name in network.damaged or held is None or held.sequence is None:
                if name in read:
                    raise BrokenError(f"{name} cannot be read, and is shown")
            elif name not in read:
                raise BrokenError(f"{name} can be read, and is missing: {dict(snapshot.failures)}")
            else:
                _compare_project(read[name], held)

    def _show(self, snapshot: LedgerSnapshot) -> None:
        """Exports it: no value is negative, and no counter falls within a birth."""
        if self._birth_us != snapshot.birth_us:
            self._birth_us, self._shown = snapshot.birth_us, {}
        families = ledger_families(snapshot, held=self._held).families
        families += tally_families(snapshot, self._held).families
        for family in families:
            for labels, value in family.samples:
                if value < 0:
                    raise BrokenError(f"{family.name}{labels} is {value}")
                if family.start is None:
                    continue
                key = (family.name, *labels)
                if value < self._shown.get(key, 0.0):
                    raise BrokenError(f"the counter {key} fell from {self._shown[key]} to {value}")
                self._shown[key] = value


def _compare_project(read: Project, held: held_project.Project) -> None:
    pairs: dict[str, tuple[object, object]] = {
        "deliveries": (+read.deliveries, held.deliveries_by_group()),
        "events": (+read.events, held.events_by_group()),
        "attempts": (
            dict(read.attempts),
            {tuple(field.decode().split("\0")): count for field, count in held.attempts.items()},
        ),
        "oldest in processing": (read.oldest_us(), held.oldest()),
        "tallies": ({name: count for name, count in read.tallies.items() if count}, dict(held.tallies)),
        "names": (read.names, tuple(name.decode() for name in held.described[1])),
    }
    for what, (found, wanted) in pairs.items():
        if found != wanted:
            raise BrokenError(f"{read.project}: {what} read as {found}, and are {wanted}")


def _told_by(snapshot: LedgerSnapshot) -> Any:
    """What a snapshot says, in an order of its own."""
    return sorted(snapshot.failures.items()), [
        (
            project.project, project.names, sorted(project.deliveries.items()), sorted(project.events.items()),
            sorted(project.attempts.items()), sorted(project.tallies.items()), sorted(project.oldest_us().items()),
        )
        for project in snapshot.projects
    ]  # fmt: skip
