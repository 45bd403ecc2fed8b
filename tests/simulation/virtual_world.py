"""Runs a schedule: real writers, readers and upkeep, in one thread, on virtual time; and looks for what must never be.

The invariants are methods of `_Checks` and of `World.end`; a broken one raises `Broken`.
"""

import contextlib
import hashlib
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, Final
from unittest import mock

from otel_queue.errors import OtelQueueError, ReadError
from otel_queue.ledger import upkeep
from otel_queue.ledger.families import ledger_families, tally_families
from otel_queue.ledger.held import HeldCounters
from otel_queue.ledger.reader import LedgerReader, LedgerSnapshot
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.ledger.writer import BufferedWriter, SyncWriter
from otel_queue.lifecycle import (
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from otel_queue.redis_client import Answers, ErrorReply, Reply, Request
from tests.ledger.ledgers import ulid
from tests.simulation.facts import Fact, fact_of, facts_of_call
from tests.simulation.holdings import assert_same_holdings
from tests.simulation.reference import Reference, day_of
from tests.simulation.schedule import DAY, SECOND, START_US, Saying, Schedule, Step
from tests.simulation.virtual_redis import Scripts, Server, VirtualRedis, Write, commands_of, project_of

# A read that asks more often than this does not end.
_MOST_EXCHANGES: Final = 200
# Nobody plays 400 days.
FOLDED_AFTER_DAYS: Final = 6
_ROUNDS_TO_END: Final = 60


class Broken(AssertionError):
    """An invariant does not hold."""


class _SteppedWriter(BufferedWriter):
    """One whose threads are the world's steps."""

    def _start(self, run: Callable[[], None]) -> None:
        return None

    def turn(self) -> None:
        self._write_oldest()
        self._announce()

    def retry(self) -> None:
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

    def all_records(self) -> list[Record]:
        """All that it would take with it if it died."""
        return [*self._queue, *(record for lane in self._lanes._lanes.values() for record in lane.records)]

    def is_done(self) -> bool:
        return not (len(self) or self._unannounced)


@dataclass(eq=False)
class _Worker:
    """A process that records."""

    name: str
    buffer: _SteppedWriter
    sync: SyncWriter | None
    accepted: list[Record] = field(default_factory=list)


@dataclass(eq=False)
class _Exporter:
    """A process that reads, and what it has shown."""

    reader: LedgerReader
    held: HeldCounters = field(default_factory=HeldCounters)
    shown: dict[tuple[str, ...], float] = field(default_factory=dict)
    birth_us: int = 0
    calm_reads: int = 0
    faults: int = -1


class _Link:
    """A way to the virtual servers, as a cluster's link or that of one server."""

    def __init__(self, world: "World", actor: str) -> None:
        self._world = world
        self._actor = actor

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        yield from self._world.exchange(self._actor, requests, deadline)

    def place(self, key: bytes, /) -> str:
        return self._world.server_of(key).name

    def close(self) -> None:
        return


class World:
    """One run of a schedule. `happened` counts faults and steps, `hash` is that of all that was asked and answered."""

    def __init__(self, schedule: Schedule, redis_port: int, scripts: Scripts) -> None:
        self.plan = schedule
        self.now_us = START_US
        self.happened: Counter[str] = Counter()
        self.told: set[Fact] = set()
        self.references = [Reference() for _ in range(schedule.servers)]
        self._hash = hashlib.sha256()
        self._redis = VirtualRedis(redis_port, schedule.servers, scripts, self._hash.update, self._written)
        self._own_error: Exception | None = None
        self._faults: dict[int, str] = {}
        self._fault_changes = 0
        self._damaged: set[str] = set()
        self._failed: Counter[int] = Counter()
        self._records: dict[int, Record] = {}
        self._ids: dict[tuple[str, int], str] = {}
        self._steps: deque[Step] = deque()
        self._acting: list[_Acting] = []
        self._dropped = 0
        self._accepted: list[Record] = []
        self._workers = {name: self._start_worker(name) for name in schedule.writers}
        self._exporters = {name: _Exporter(LedgerReader(_Link(self, name))) for name in schedule.exporters}
        self._upkeep = {name: Upkeep(_Link(self, name)) for name in ("operator-0", "operator-1")}

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    def run(self) -> None:
        """Plays the schedule and its end; raises Broken, and whatever a part of the package should not raise."""
        with self._virtual_time():
            try:
                self._do(Step(-1, "begin", "operator-0"))
                self._steps.extend(self.plan.steps)
                while self._steps:
                    self._do(self._steps.popleft())
                self._end()
            finally:
                self._redis.close()

    @contextlib.contextmanager
    def _virtual_time(self) -> Iterator[None]:
        def now() -> float:
            return self.now_us / 1e6

        with (
            mock.patch.object(time, "monotonic", now),
            mock.patch.object(time, "time", now),
            mock.patch.object(upkeep, "_FOLDED_AFTER_DAYS", FOLDED_AFTER_DAYS),
        ):
            yield

    def _start_worker(self, name: str) -> _Worker:
        store = LedgerStore(_Link(self, name))
        buffer = _SteppedWriter(store, most_records=self.plan.most_records, flush_at_exit=False)
        sync = SyncWriter(store, buffer) if self.plan.writers[name] == "waiting" else None
        return _Worker(name, buffer, sync)

    # Redis

    def server_of(self, key: bytes) -> Server:
        """Where a key is kept; what is the whole ledger's is on the first server."""
        return self._redis.servers[self.plan.projects.get(project_of(key), 0)]

    def _written(self, server: Server, write: Write) -> None:
        try:
            self._refer(server, write)
            self.told.update(facts_of_call(write.script, write.project, write.arguments))
        except Exception as error:  # a writer would take it for a fault of Redis
            self._own_error = self._own_error or error
            raise

    def _refer(self, server: Server, write: Write) -> None:
        if write.script:
            self.references[server.number].call(write.script, write.project, write.arguments, write.now_us, write.reply)

    def exchange(self, actor: str, requests: Sequence[Request], deadline: float) -> Answers:
        """As a link's: requests go to their servers, each in its turn, and other steps come before them."""
        acting = self._acting[-1]
        number = acting.exchanges
        acting.exchanges += 1
        if number > _MOST_EXCHANGES:
            raise Broken(f"{actor} does not come to an end")
        fate = acting.step.fates[number] if number < len(acting.step.fates) else ""
        between = acting.step.meanwhile[number] if number < len(acting.step.meanwhile) else 0
        for _ in range(between if len(self._acting) == 1 else 0):
            if self._steps and self._steps[0].actor != actor:
                acting.is_alone = False
                self._do(self._steps.popleft())
        if fate:
            acting.is_alone = False
            self.happened[f"exchange {fate}"] += 1
        by_server: dict[int, list[int]] = {}
        for index, item in enumerate(requests):
            by_server.setdefault(self.server_of(item.key).number, []).append(index)
        order = acting.chance.sample(sorted(by_server), len(by_server))
        order.sort(key=lambda number: number in self._failed)
        answers: list[list[Reply] | ReadError] = [ReadError("cluster_down", "")] * len(requests)
        for server_number in order:
            indexes = by_server[server_number]
            until = deadline if len(by_server) == 1 else (self.now_us / 1e6 + deadline) / 2
            parts = self._converse(server_number, [requests[index] for index in indexes], until, fate, acting.chance)
            if self.plan.servers == 1:
                for part in parts:
                    if isinstance(part, ReadError):
                        raise part
                    yield part
                return
            error = next((part for part in parts if isinstance(part, ReadError)), None)
            self._failed.pop(server_number, None)
            if error is not None:
                self._failed[server_number] = 1
            for index, part in zip(indexes, parts, strict=True):
                answers[index] = error or part
        if all(isinstance(answer, ReadError) for answer in answers):
            raise answers[0]  # type: ignore[misc]
        yield from answers

    def _converse(
        self, server_number: int, requests: Sequence[Request], deadline: float, fate: str, chance: random.Random
    ) -> list[list[Reply] | ReadError]:
        """The replies of one server to each request, up to a ReadError where they end."""
        server, fault = self._redis.servers[server_number], self._faults.get(server_number)
        lost = ReadError("timeout", f"{server.name} does not answer")
        if fault == "dead":
            return [ReadError("connection", f"{server.name} refuses connections")] * len(requests)
        if fault == "hole" or fate == "lost":
            self.now_us = max(self.now_us, int(deadline * 1e6))
            return [lost] * len(requests)
        self.now_us += chance.randint(50, 900)
        if self.now_us / 1e6 > deadline:
            return [lost] * len(requests)
        executed = chance.randint(0, len(requests)) if fate == "cut" else len(requests)
        commands = [commands_of(item.packed) for item in requests[:executed]]
        replies = iter(self._redis.execute(server, [words for each in commands for words in each], self.now_us))
        parts: list[list[Reply] | ReadError] = [list(islice(replies, len(each))) for each in commands]
        if fate == "unanswered":
            self.now_us = max(self.now_us, int(deadline * 1e6))
            return [lost] * len(requests)
        if fate == "cut":
            answered = chance.randint(0, executed)
            gone = ReadError("connection", f"{server.name} ended the connection")
            return [*parts[:answered], *[gone] * (len(requests) - answered)]
        return parts

    # Steps

    def _do(self, step: Step) -> None:
        self._hash.update(f"{self.now_us} {step}".encode())
        self.happened[step.kind] += 1
        acting = _Acting(step, random.Random(f"{self.plan.seed} {step.id}"))
        self._acting.append(acting)
        try:
            getattr(self, "_do_" + step.kind.replace(" ", "_"))(acting, *step.what)
        finally:
            self._acting.pop()
        if self._own_error is not None:
            raise self._own_error

    def _do_wait(self, _: "_Acting", duration_us: int) -> None:
        self.now_us += duration_us

    def _do_tell(self, acting: "_Acting", number: int) -> None:
        if number not in self._records:
            self._records[number] = self._record_of(self.plan.sayings[number])
        self._tell(acting.step.actor, self._records[number])

    def _do_describe(self, acting: "_Acting", project: str, offset_us: int, name: str) -> None:
        self._tell(acting.step.actor, ProjectDescribed(project, self.now_us + offset_us, name, "org", "Org " + name))

    def _do_say_expired(self, acting: "_Acting", project: str, days_ago: int) -> None:
        self._tell(acting.step.actor, DayExpired(project, day_of((self.now_us - days_ago * DAY) // SECOND)))

    def _tell(self, name: str, record: Record) -> None:
        worker = self._workers[name]
        dropped = worker.buffer.dropped
        (worker.sync or worker.buffer).write([record])
        if worker.buffer.dropped == dropped:
            worker.accepted.append(record)

    def _record_of(self, saying: Saying) -> Record:
        at = self.now_us + saying.offset_us
        if saying.is_whole_second:
            at -= at % SECOND
        key = ("attempt" if saying.kind == "attempt" else "event" if saying.kind == "event" else "delivery", saying.number)
        if key not in self._ids:
            self._ids[key] = (
                f"{key[0]}-{saying.number}" if saying.is_undated else ulid(self.now_us - saying.age_us, saying.number)
            )
        id_, project, labels = self._ids[key], saying.project, dict(saying.labels)
        if saying.kind == "event":
            return EventCreated(project, id_, at, labels.get("source", UNTOLD))
        if saying.kind == "attempt":
            return AttemptMade(project, id_, at, labels.get("endpoint", UNTOLD), saying.code == "200 OK", saying.code)
        created = None if saying.created_offset_us is None else at + saying.created_offset_us
        told = [labels.get(name, UNTOLD) for name in ("endpoint", "event_type", "source")]
        if saying.kind == "created":
            return DeliveryCreated(project, id_, at, *told, status=saying.status, created_us=created)
        return StatusSet(project, id_, saying.status, at, *told, created_us=created)

    def _do_turn(self, acting: "_Acting") -> None:
        worker = self._workers[acting.step.actor]
        healthy = [record for record in worker.buffer.untried() if self._takes_writes(record.project)]
        worker.buffer.turn()
        if acting.is_alone:
            left = [record for record in healthy if fact_of(record) not in self.told]
            if left:
                raise Broken(f"{worker.name} did not write what it could have: {left[:3]}")

    def _do_retry(self, acting: "_Acting") -> None:
        self._workers[acting.step.actor].buffer.retry()

    def _do_crash(self, acting: "_Acting") -> None:
        name = acting.step.actor
        self._dropped += self._workers[name].buffer.dropped
        held = {id(record) for record in self._workers[name].buffer.all_records()}
        self._accepted += [record for record in self._workers[name].accepted if id(record) not in held]
        self._workers[name] = self._start_worker(name)

    def _takes_writes(self, project: str) -> bool:
        """Whether a call for the project would be done now."""
        server = self._redis.servers[self.plan.projects[project]]
        if self._faults.get(server.number) or server.is_full or server.refusal or project in self._damaged:
            return False
        held = self.references[server.number].projects.get(project)
        return (held is not None and held.contract != "") or (not self._faults.get(0) and self._has_contract())

    def _has_contract(self) -> bool:
        return self._redis.look(self._redis.servers[0], [(b"EXISTS", b"oq:contract")], self.now_us) == [1]

    def _do_dead(self, _: "_Acting", number: int) -> None:
        self._fault(number, "dead")

    def _do_hole(self, _: "_Acting", number: int) -> None:
        self._fault(number, "hole")

    def _fault(self, number: int, fault: str) -> None:
        self._faults[number] = fault
        self._fault_changes += 1

    def _do_full(self, _: "_Acting", number: int) -> None:
        self._redis.servers[number].is_full = True

    def _do_refuse(self, _: "_Acting", number: int, refusal: str) -> None:
        self._redis.servers[number].refusal = refusal

    def _do_mend(self, _: "_Acting", number: int) -> None:
        server = self._redis.servers[number]
        server.is_full, server.refusal = False, ""
        if self._faults.pop(number, None):
            self._fault_changes += 1
        for project in [each for each in sorted(self._damaged) if self.plan.projects[each] == number]:
            meta = b"oq:{%s}:meta" % project.encode()
            self._redis.look(server, [(b"RENAME", b"sim:aside:" + meta, meta)], self.now_us)
            self._damaged.discard(project)

    def _do_damage(self, _: "_Acting", project: str) -> None:
        """Puts rubbish in the place of a project's meta, until the server is mended."""
        server, meta = self._redis.servers[self.plan.projects[project]], b"oq:{%s}:meta" % project.encode()
        if project not in self._damaged and self._redis.look(server, [(b"EXISTS", meta)], self.now_us) == [1]:
            self._damaged.add(project)
            aside = b"sim:aside:" + meta
            self._redis.look(server, [(b"RENAME", meta, aside), (b"SET", meta, b"rubbish")], self.now_us)

    def _do_lose(self, _: "_Acting", number: int, writes: int) -> None:
        server = self._redis.servers[number]
        self._damaged -= {each for each, of in self.plan.projects.items() if of == number}
        self._redis.lose_tail(server, writes)
        self.references[number] = Reference()
        for write in server.writes:
            self._refer(server, write)

    def _do_begin(self, acting: "_Acting") -> None:
        self._upkeep[acting.step.actor].begin(self.plan.rule)

    def _do_settle(self, acting: "_Acting", project: str) -> None:
        with self._upkeep_may_fail():
            self._upkeep[acting.step.actor].settle(project)

    def _do_expire(self, acting: "_Acting", project: str, days_ago: int) -> None:
        with self._upkeep_may_fail():
            upkeep = self._upkeep[acting.step.actor]
            upkeep.expire(project, day_of((self.now_us - days_ago * DAY) // SECOND))

    def _do_add_rule(self, acting: "_Acting", rule: Any) -> None:
        with self._upkeep_may_fail():
            self._upkeep[acting.step.actor].add_rule(rule)

    @contextlib.contextmanager
    def _upkeep_may_fail(self) -> Iterator[None]:
        try:
            yield
        except OtelQueueError as error:
            self.happened[f"upkeep failed: {getattr(error, 'reason', 'refused')}"] += 1

    def _do_read(self, acting: "_Acting") -> None:
        exporter = self._exporters[acting.step.actor]
        try:
            snapshot = exporter.reader.snapshot()
        except ReadError as error:
            self._hash.update(error.reason.encode())
            if acting.is_alone and self._can_read_all():
                raise Broken(f"the ledger cannot be read: {error}") from error
            return
        exporter.calm_reads = exporter.calm_reads + 1 if exporter.faults == self._fault_changes and acting.is_alone else 0
        exporter.faults = self._fault_changes
        self._hash.update(repr(_told_by(snapshot)).encode())
        self._show(exporter, snapshot)
        if acting.is_alone and (self._can_read_all() or exporter.calm_reads > 1):
            self._compare(snapshot)

    def _can_read_all(self) -> bool:
        return not self._faults and not self._damaged and self._has_contract()

    def _compare(self, snapshot: LedgerSnapshot) -> None:
        """What was read is what the servers hold now, and nothing that can be read is missing."""
        read = {project.project: project for project in snapshot.projects}
        for name in self.references[0].announced:
            number = self.plan.projects[name]
            reference = self.references[number].projects.get(name)
            if self._faults.get(number) or name in self._damaged or reference is None or reference.sequence is None:
                if name in read:
                    raise Broken(f"{name} cannot be read, and is shown")
                continue
            if name not in read:
                raise Broken(f"{name} can be read, and is missing: {dict(snapshot.failures)}")
            project = read[name]
            found = (+project.deliveries, +project.events, dict(project.attempts), project.oldest_us())
            wanted = (
                reference.deliveries_by_group(), reference.events_by_group(),
                {tuple(field.decode().split("\0")): count for field, count in reference.attempts.items()},
                reference.oldest(),
            )  # fmt: skip
            if found != wanted:
                raise Broken(f"{name} is read as {found}, and is {wanted}")
            if {name: count for name, count in project.tallies.items() if count} != dict(reference.tallies):
                raise Broken(f"{name} is read with {project.tallies}, and has {reference.tallies}")
            if project.names != tuple(each.decode() for each in reference.described[1]):
                raise Broken(f"{name} is read with the names {project.names}, and has {reference.described}")

    def _show(self, exporter: _Exporter, snapshot: LedgerSnapshot) -> None:
        """What is exported: no value is negative, and no counter falls within a birth."""
        if exporter.birth_us != snapshot.birth_us:
            exporter.birth_us, exporter.shown = snapshot.birth_us, {}
        families = ledger_families(snapshot, held=exporter.held).families
        families += tally_families(snapshot, exporter.held).families
        for family in families:
            for labels, value in family.samples:
                if value < 0:
                    raise Broken(f"{family.name}{labels} is {value}")
                if family.start is None:
                    continue
                key = (family.name, *labels)
                if value < exporter.shown.get(key, 0.0):
                    raise Broken(f"the counter {key} fell from {exporter.shown[key]} to {value}")
                exporter.shown[key] = value

    # The end

    def _end(self) -> None:
        """All is mended and written; then nothing is lost, and in the end nothing is left."""
        for number in range(self.plan.servers):
            self._do(Step(-2 - number, "mend", "", (number,)))
        if not self._has_contract():
            self._do(Step(-10, "begin", "operator-0"))
        for worker in self._workers.values():
            self._write_all(worker)
        self._assert_nothing_lost()
        for exporter in self._exporters:
            for _ in range(2):
                self._do(Step(-20, "read", exporter))
        self._assert_holdings()
        self._expire_all()

    def _write_all(self, worker: _Worker) -> None:
        for _ in range(_ROUNDS_TO_END):
            if worker.buffer.is_done():
                return
            self.now_us += 5 * SECOND
            self._do(Step(-30, "retry", worker.name))
            self._do(Step(-31, "turn", worker.name))
        raise Broken(f"{worker.name} does not get rid of {len(worker.buffer)} records: {worker.buffer.errors()}")

    def _assert_nothing_lost(self) -> None:
        """Each record that a writer took was told to a server, but for those that it says it dropped, or died with."""
        accepted = [*self._accepted, *(record for worker in self._workers.values() for record in worker.accepted)]
        missing = [record for record in accepted if fact_of(record) not in self.told]
        dropped = self._dropped + sum(worker.buffer.dropped for worker in self._workers.values())
        if len(missing) > dropped:
            raise Broken(f"{len(missing)} records are lost, {dropped} were counted as dropped: {missing[:3]}")

    def _assert_holdings(self) -> None:
        for server, reference in zip(self._redis.servers, self.references, strict=True):
            reference.pass_time(self.now_us)
            try:
                assert_same_holdings(lambda *words, of=server: self._redis.look(of, [words], self.now_us)[0], reference)
            except AssertionError as error:
                raise Broken(f"{server.name}: {error}") from error

    def _expire_all(self) -> None:
        """When all days have gone, nothing is left that grows with what was told."""
        self.now_us += 40 * DAY
        for project in sorted(each for of in self.references for each in of.projects):
            for kind, what in (("expire", (1,)), ("settle", ()), ("free", ())):
                self._do(Step(-40, kind, "operator-0", (project, *what)))
        self._assert_holdings()
        for server in self._redis.servers:
            keys = self._redis.look(server, [(b"KEYS", b"oq:*")], self.now_us)[0]
            folded = {key.rpartition(b":counts:")[0] for key in keys if key.endswith(b":counts:settled")}
            # What was folded stays, with the groups that it counts.
            left = sorted(
                key
                for key in keys
                if not key.endswith((b":meta", b":attempts", b":days", b":contract", b":projects", b":settled"))
                and not (key.endswith(b":groups") and key.removesuffix(b":groups") in folded)
            )
            if left:
                raise Broken(f"{server.name} still has {left}")

    def _do_free(self, acting: "_Acting", project: str) -> None:
        with self._upkeep_may_fail():
            self._upkeep[acting.step.actor].free_groups(project)


@dataclass
class _Acting:
    """A step under way."""

    step: Step
    chance: random.Random
    exchanges: int = 0
    is_alone: bool = True


def _told_by(snapshot: LedgerSnapshot) -> Any:
    """What a snapshot says, in an order of its own."""
    return sorted(snapshot.failures.items()), [
        (
            project.project, project.names, sorted(project.deliveries.items()), sorted(project.events.items()),
            sorted(project.attempts.items()), sorted(project.tallies.items()), sorted(project.oldest_us().items()),
        )
        for project in snapshot.projects
    ]  # fmt: skip
