"""Reading the ledger: costs by the projects and days that changed, not by what was ever tracked."""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Final

from otel_queue.errors import ReadError
from otel_queue.ledger.changes import read_project
from otel_queue.ledger.contract import Contract, read_contract
from otel_queue.ledger.keys import Keys
from otel_queue.ledger.project import Project
from otel_queue.ledger.registry import Listing, Registry
from otel_queue.redis_client import RedisLink, Rounds
from otel_queue.shard import WHOLE, Shard

UNREAD: Final = "unread"
"""Why a project is missing that there was no time for; the next read begins with it."""

# So many projects that nobody announced are looked at in each read, those first that were not for the longest time.
_UNANNOUNCED: Final = 500
# Projects that are read together: what they send has to fit into the time that is left.
_FIRST_CHUNK: Final = 250
_LARGEST_CHUNK: Final = 1000
# Reasons that are the node's, and so those of all projects that were read from it.
_OF_THE_NODE: Final = frozenset({"connection", "timeout", "loading", "cluster_down", "master_down"})


@dataclass(frozen=True, slots=True)
class LedgerSnapshot:
    """The ledger at `time` (Redis server time, Unix seconds). `birth_us` is when it began.

    `projects` are those that could be read; `failures` counts those that could not, by reason, which is `unread` for
    those that there was no time for.
    """

    time: float
    birth_us: int
    projects: tuple[Project, ...]
    failures: Mapping[str, int]
    duration_seconds: float
    round_trips: int


class LedgerReader:
    """Reads the projects of its shard, and remembers what it read. Safe for threads: one read at a time.

    A read asks for the projects that were announced since the last one, and in turn for `_UNANNOUNCED` others. So a
    change whose announcement was lost is found within (projects / 500) reads, and the list of projects is compared
    as often with what is known of it. What there is no time for is read first in the next read.

    What it remembers is of one history: the same sequence numbers and numbers of groups mean other things in a Redis
    that lost the end of what was read from it, or another. So each project is asked for together with the replication
    id of who answers, and one project of each history in every read: when that has another id, all projects of the
    history are looked at. Where INFO is refused, only numbers that went back tell.
    """

    def __init__(
        self, link: RedisLink, *, namespace: str = "oq", timeout_seconds: float = 5.0, shard: Shard = WHOLE
    ) -> None:
        self._link = link
        self._shard = shard
        self._keys = Keys(namespace)
        self._timeout = timeout_seconds
        self._registry = Registry(self._keys.projects)
        self._birth_us: int | None = None
        # In the order in which they were looked at.
        self._projects: dict[str, Project] = {}
        self._due: dict[str, None] = {}
        self._failed: dict[str, str] = {}
        self._sorted: list[str] | None = None
        self._chunk = _FIRST_CHUNK
        self._lock = threading.Lock()

    def snapshot(self) -> LedgerSnapshot:
        """The ledger now, as far as it can be read in time. Two round trips when nothing changed; for each chunk of
        projects that did change five, and one more when a day of a project has gone, or one is read for the first time.

        Raises ReadError when nothing can be read, and with reason `no_birth` when it has no contract: a ledger that was
        flushed is unknown, not empty.
        """
        with self._lock:
            return self._snapshot()

    def _snapshot(self) -> LedgerSnapshot:
        started = time.monotonic()
        rounds = Rounds(self._link, started + self._timeout, clock_key=self._keys.contract)
        birth = self._read_registry(rounds)
        self._read_projects(rounds, started + self._timeout)
        if self._sorted is None:
            self._sorted = sorted(self._projects)
        missing = self._due.keys() | self._failed.keys()
        failures = Counter(self._failed.values())
        if self._due:
            failures[UNREAD] += len(self._due)
        return LedgerSnapshot(
            time=rounds.time or time.time(),
            birth_us=birth,
            projects=tuple(self._projects[name] for name in self._sorted if name not in missing),
            failures=dict(failures),
            duration_seconds=time.monotonic() - started,
            round_trips=rounds.round_trips,
        )

    def _read_registry(self, rounds: Rounds) -> int:
        """Learns which projects are to be read, and returns the birth."""
        contracts: list[Contract] = []
        rounds.start(read_contract(self._keys), contracts.append)
        rounds.start(self._registry.read(), self._take)
        try:
            rounds.finish()
        except ReadError as error:
            if error.reason in ("no_birth", "contract"):
                self._forget()  # what comes in its place is another ledger, even one that looks the same
            raise
        birth = contracts[0].birth_us
        if birth != self._birth_us and self._birth_us is not None:
            self._forget()  # another ledger than the one we remember
            rounds.start(self._registry.read(), self._take)
            rounds.finish()
        self._birth_us = birth
        return birth

    def _forget(self) -> None:
        self._registry.forget()
        for known in (self._projects, self._due, self._failed):
            known.clear()
        self._sorted = None

    def _take(self, listing: Listing) -> None:
        if listing.registered is not None:
            registered = {name for name in listing.registered if self._shard.owns(name)}
            for name in self._projects.keys() - registered:
                for known in (self._projects, self._due, self._failed):
                    known.pop(name, None)
                self._sorted = None
        for name in listing.announced:
            if not self._shard.owns(name):
                continue
            if name not in self._projects:
                self._projects[name] = Project(name)
                self._sorted = None
            self._look_at(name)

    def _look_at(self, name: str) -> None:
        if name not in self._failed:
            self._due.setdefault(name)

    def _read_projects(self, rounds: Rounds, deadline: float) -> None:
        """Reads those that are due, and those that failed the last time after all others, chunk by chunk.

        What cannot be read before the deadline stays due. Raises ReadError if none can.
        """
        known = [name for name in self._projects if name not in self._due and name not in self._failed]
        others = dict.fromkeys(chain(self._one_of_each_history(known), known[:_UNANNOUNCED]))
        failed = list(self._failed)
        asked: set[str] = set()
        seconds = slowest = 0.0
        while batch := self._next_chunk(asked, (chain(others, self._due), failed)):
            began = time.monotonic()
            if asked and began + seconds > deadline:
                break
            size = len(asked)
            asked.update(batch)
            left = dict.fromkeys(batch)
            try:
                self._read_chunk(rounds, left)
            except ReadError as error:
                # Behind the others: it may be one of these that takes so long.
                for name in left:
                    self._due.pop(name, None)
                    self._look_at(name)
                self._chunk = max(self._chunk // 2, 1)
                if error.reason != "timeout" or (not size and len(left) == len(batch)):
                    raise
                return
            seconds = time.monotonic() - began
            slowest = max(seconds, slowest)
        if slowest < self._timeout / 20:
            self._chunk = min(self._chunk * 2, _LARGEST_CHUNK)
        elif slowest > self._timeout / 5:
            self._chunk = max(self._chunk // 2, 1)

    def _next_chunk(self, asked: set[str], sources: Iterable[Iterable[str]]) -> list[str]:
        """The next projects of the first source that has any; never of two, since one may be of a dead node."""
        for source in sources:
            if batch := list(islice((name for name in source if name not in asked), self._chunk)):
                return batch
        return []

    def _one_of_each_history(self, known: Iterable[str]) -> list[str]:
        """Projects to tell by that a node goes on from another history; the registry tells it of its own node."""
        found = {self._projects[name].history: name for name in known}
        return [name for history, name in found.items() if history not in (b"", self._registry.history)]

    def _read_chunk(self, rounds: Rounds, left: dict[str, None]) -> None:
        """Reads these projects, and takes out of `left` those that were read or failed."""
        ended: dict[bytes, str | None] = {}

        def done(before: bytes, project: Project) -> None:
            name = project.project
            for of in (left, self._due, self._failed):
                of.pop(name, None)
            self._projects[name] = self._projects.pop(name)  # behind those that are older
            if project.history != before:
                ended[before] = None

        def failed(before: bytes, name: str, error: ReadError) -> None:
            for of in (left, self._due, self._failed):
                of.pop(name, None)
            self._failed[name] = error.reason
            if error.reason in _OF_THE_NODE:
                ended.setdefault(before, error.reason)

        for name in left:
            project = self._projects[name]
            before = project.history
            rounds.start(
                read_project(project, self._keys.project(name)), partial(done, before), partial(failed, before, name)
            )
        rounds.finish()
        ended.pop(b"", None)
        if ended:
            self._doubt(ended)

    def _doubt(self, ended: Mapping[bytes, str | None]) -> None:
        """Of each of these histories one project turned out to be of another, or failed for a reason of its node."""
        for name, project in self._projects.items():
            if project.history not in ended or name in self._failed:
                continue
            reason = ended[project.history]
            if reason is None:
                self._due.setdefault(name)
            else:
                self._due.pop(name, None)
                self._failed[name] = reason
