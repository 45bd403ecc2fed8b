"""Plays a schedule: real writers, readers and upkeep, in one thread, on virtual time; and looks for what must never be.

What an exporter shows is checked where it reads (exporter.py), what a writer owes after each turn and at the end.
"""

import contextlib
import hashlib
import random
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator
from typing import Final
from unittest import mock

from otel_queue.errors import OtelQueueError
from otel_queue.ledger import upkeep
from otel_queue.ledger.contract import Rule
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import (
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    DeliveryRead,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from tests.ledger.ledgers import ulid
from tests.simulation.exporter import Exporter
from tests.simulation.facts import fact_of
from tests.simulation.holdings import assert_same_holdings
from tests.simulation.network import Acting, BrokenError, Link, Network
from tests.simulation.project import day_of
from tests.simulation.schedule import DAY, OPERATORS, SECOND, Saying, Schedule, Step
from tests.simulation.virtual_redis import Scripts
from tests.simulation.worker import Worker

# Nobody plays 400 days.
_FOLDED_AFTER_DAYS: Final = 6
_ROUNDS_TO_END: Final = 60
# What stays when every day has gone, but for what was folded.
_STAYS: Final = (b":meta", b":attempts", b":attempt-labels", b":days", b":contract", b":projects", b":settled")


class World:
    """One run of a schedule. `happened` counts faults and steps, `hash` is that of all that was asked and answered."""

    def __init__(self, schedule: Schedule, redis_port: int, scripts: Scripts) -> None:
        self._plan = schedule
        self._hash = hashlib.sha256()
        self._net = Network(schedule.servers, schedule.projects, redis_port, scripts, self._hash.update)
        self._steps: deque[Step] = deque()
        self._acting: list[Acting] = []
        self._records: dict[int, Record] = {}
        self._ids: dict[tuple[str, int], str] = {}
        # Of workers that died: what they had been told and did not take along, and what they said they dropped.
        self._answered: list[Record] = []
        self._dropped = 0
        self._workers = {name: self._start_worker(name) for name in schedule.writers}
        self._exporters = {
            name: Exporter(self._net, Link(self._net, self, name), self._hash.update) for name in schedule.exporters
        }
        self._upkeep = {name: Upkeep(Link(self._net, self, name)) for name in OPERATORS}

    @property
    def hash(self) -> str:
        return self._hash.hexdigest()

    @property
    def happened(self) -> Counter[str]:
        return self._net.happened

    def run(self) -> None:
        """Plays the schedule and its end; raises BrokenError, and whatever a part of the package should not raise."""
        with self._virtual_time(), contextlib.closing(self._net):
            self._do(Step(-1, "begin", OPERATORS[0]))
            self._steps.extend(self._plan.steps)
            while self._steps:
                self._do(self._steps.popleft())
            self._end()

    @contextlib.contextmanager
    def _virtual_time(self) -> Iterator[None]:
        def now() -> float:
            return self._net.now_us / 1e6

        with (
            mock.patch.object(time, "monotonic", now),
            mock.patch.object(time, "time", now),
            mock.patch.object(upkeep, "_FOLDED_AFTER_DAYS", _FOLDED_AFTER_DAYS),
        ):
            yield

    def _start_worker(self, name: str) -> Worker:
        link = Link(self._net, self, name)
        waits = self._plan.writers[name] == "waiting"
        return Worker(name, link, waits=waits, most_records=self._plan.most_records)

    def acting(self) -> Acting:
        """As Actors."""
        return self._acting[-1]

    def do_others(self, actor: str, steps: int) -> bool:
        """As Actors; what happens meanwhile is not interrupted itself."""
        done = False
        for _ in range(steps if len(self._acting) == 1 else 0):
            if self._steps and self._steps[0].actor != actor:
                self._do(self._steps.popleft())
                done = True
        return done

    def _do(self, step: Step) -> None:
        self._hash.update(f"{self._net.now_us} {step}".encode())
        self.happened[step.kind] += 1
        acting = Acting(step, random.Random(f"{self._plan.seed} {step.id}"))
        self._acting.append(acting)
        try:
            do: Callable[..., None] = getattr(self, "_do_" + step.kind.replace(" ", "_"))
            do(acting, *step.what)
        finally:
            self._acting.pop()
        if self._net.own_error is not None:
            raise self._net.own_error

    # What workers do

    def _do_tell(self, acting: Acting, number: int) -> None:
        if number not in self._records:
            self._records[number] = self._record_of(self._plan.sayings[number])
        self._workers[acting.step.actor].tell(self._records[number])

    def _do_describe(self, acting: Acting, project: str, offset_us: int, name: str) -> None:
        described = ProjectDescribed(project, self._net.now_us + offset_us, name, "org", "Org " + name)
        self._workers[acting.step.actor].tell(described)

    def _do_say_expired(self, acting: Acting, project: str, days_ago: int) -> None:
        self._workers[acting.step.actor].tell(DayExpired(project, self._day_before(days_ago)))

    def _day_before(self, days: int) -> str:
        return day_of((self._net.now_us - days * DAY) // SECOND)

    def _record_of(self, saying: Saying) -> Record:
        now, project, labels = self._net.now_us, saying.project, dict(saying.labels)
        at = now + saying.offset_us
        if saying.is_whole_second:
            at -= at % SECOND
        kind = saying.kind if saying.kind in ("attempt", "event") else "delivery"
        made = f"{kind}-{saying.number}" if saying.is_undated else ulid(now - saying.age_us, saying.number)
        id_ = self._ids.setdefault((kind, saying.number), made)
        endpoint, event_type, source = (labels.get(name, UNTOLD) for name in ("endpoint", "event_type", "source"))
        created = None if saying.created_offset_us is None else at + saying.created_offset_us
        if kind == "event":
            return EventCreated(project, id_, at, source)
        if kind == "attempt":
            return AttemptMade(project, id_, at, endpoint, saying.code == "200 OK", saying.code)
        if saying.kind == "created":
            return DeliveryCreated(project, id_, at, endpoint, event_type, source, saying.status, created)
        if saying.kind == "row":
            return DeliveryRead(project, id_, saying.status, at, endpoint, event_type, source, created)
        return StatusSet(project, id_, saying.status, at, endpoint, event_type, source, created)

    def _do_turn(self, acting: Acting) -> None:
        """What suffers one project, or one server, is not felt by the others: their records are written."""
        worker = self._workers[acting.step.actor]
        healthy = [record for record in worker.buffer.untried() if self._is_writable(record.project)]
        worker.buffer.turn()
        left = [record for record in healthy if fact_of(record) not in self._net.told]
        if acting.is_alone and left:
            raise BrokenError(f"{worker.name} did not write what it could have: {left[:3]}")

    def _is_writable(self, project: str) -> bool:
        """Whether a call for the project would be done now."""
        net, server = self._net, self._net.home(project)
        if net.faults.get(server.number) or server.is_full or server.refusal or project in net.damaged:
            return False
        held = net.references[server.number].projects.get(project)
        # A project's first writer reads the contract.
        return (held is not None and held.contract != "") or (not net.faults.get(0) and net.has_contract())

    def _do_retry(self, acting: Acting) -> None:
        self._workers[acting.step.actor].buffer.retry()

    def _do_crash(self, acting: Acting) -> None:
        worker = self._workers[acting.step.actor]
        self._dropped += worker.buffer.dropped
        self._answered += worker.answered()
        self._workers[worker.name] = self._start_worker(worker.name)

    # What exporters and operators do

    def _do_read(self, acting: Acting) -> None:
        self._exporters[acting.step.actor].read(acting)

    def _do_begin(self, acting: Acting) -> None:
        self._upkeep[acting.step.actor].begin(self._plan.rule)

    def _do_settle(self, acting: Acting, project: str) -> None:
        with self._failing_openly():
            self._upkeep[acting.step.actor].settle(project)

    def _do_expire(self, acting: Acting, project: str, days_ago: int) -> None:
        with self._failing_openly():
            self._upkeep[acting.step.actor].expire(project, self._day_before(days_ago))

    def _do_free(self, acting: Acting, project: str) -> None:
        with self._failing_openly():
            self._upkeep[acting.step.actor].free_groups(project)

    def _do_add_rule(self, acting: Acting, rule: Rule) -> None:
        """An operator does so when all is well, and again until every project has the rule."""
        if self._net.faults or self._net.damaged or any(each.is_full or each.refusal for each in self._net.servers):
            return
        for _ in range(len(acting.step.fates) + 1):
            try:
                self._upkeep[acting.step.actor].add_rule(rule)
            except OtelQueueError:
                continue
            return

    @contextlib.contextmanager
    def _failing_openly(self) -> Iterator[None]:
        try:
            yield
        except OtelQueueError as error:
            self.happened[f"upkeep failed: {getattr(error, 'reason', 'refused')}"] += 1

    # What happens to them

    def _do_wait(self, _: Acting, duration_us: int) -> None:
        self._net.now_us += duration_us

    def _do_dead(self, _: Acting, number: int) -> None:
        self._net.set_fault(number, "dead")

    def _do_hole(self, _: Acting, number: int) -> None:
        self._net.set_fault(number, "hole")

    def _do_full(self, _: Acting, number: int) -> None:
        self._net.servers[number].is_full = True

    def _do_refuse(self, _: Acting, number: int, refusal: str) -> None:
        self._net.servers[number].refusal = refusal

    def _do_lose(self, _: Acting, number: int, writes: int) -> None:
        self._net.lose_tail(number, writes)

    def _do_damage(self, _: Acting, project: str) -> None:
        """Puts rubbish in the place of a project's meta, until the server is mended."""
        net, server, meta = self._net, self._net.home(project), b"oq:{%s}:meta" % project.encode()
        if project not in net.damaged and net.look(server, b"EXISTS", meta):
            net.damaged.add(project)
            net.fault_changes += 1
            net.look(server, b"RENAME", meta, b"sim:aside:" + meta)
            net.look(server, b"SET", meta, b"rubbish")

    def _do_mend(self, _: Acting, number: int) -> None:
        net, server = self._net, self._net.servers[number]
        server.is_full, server.refusal = False, ""
        net.set_fault(number, None)
        for project in [each for each in sorted(net.damaged) if net.home(each) is server]:
            meta = b"oq:{%s}:meta" % project.encode()
            net.look(server, b"RENAME", b"sim:aside:" + meta, meta)
            net.damaged.discard(project)
            net.fault_changes += 1

    # The end

    def _end(self) -> None:
        """All is mended and written; then nothing is lost, and when all days have gone nothing is left."""
        for number in range(self._plan.servers):
            self._do(Step(-2 - number, "mend", "", (number,)))
        if not self._net.has_contract():
            self._do(Step(-10, "begin", OPERATORS[0]))
        for worker in self._workers.values():
            self._write_all(worker)
        self._assert_nothing_lost()
        for exporter in self._exporters:
            for _ in range(2):
                self._do(Step(-20, "read", exporter))
        self._assert_holdings()
        self._let_all_days_go()

    def _write_all(self, worker: Worker) -> None:
        for _ in range(_ROUNDS_TO_END):
            if worker.buffer.is_done():
                return
            self._net.now_us += 5 * SECOND
            self._do(Step(-30, "retry", worker.name))
            self._do(Step(-31, "turn", worker.name))
        raise BrokenError(f"{worker.name} keeps {len(worker.buffer)} records: {worker.buffer.errors()}")

    def _assert_nothing_lost(self) -> None:
        """Each record that a writer took was told to a server, but for those that it says it dropped, or died with."""
        workers = self._workers.values()
        taken = [*self._answered, *(record for worker in workers for record in worker.accepted)]
        missing = [record for record in taken if fact_of(record) not in self._net.told]
        dropped = self._dropped + sum(worker.buffer.dropped for worker in workers)
        if len(missing) > dropped:
            raise BrokenError(f"{len(missing)} records are lost, {dropped} were counted as dropped: {missing[:3]}")

    def _assert_holdings(self) -> None:
        for server, reference in zip(self._net.servers, self._net.references, strict=True):
            reference.pass_time(self._net.now_us)
            try:
                assert_same_holdings(lambda *words, of=server: self._net.look(of, *words), reference)
            except AssertionError as error:
                raise BrokenError(f"{server.name}: {error}") from error

    def _let_all_days_go(self) -> None:
        self._net.now_us += 40 * DAY
        for project in sorted(each for reference in self._net.references for each in reference.projects):
            for kind, what in (("expire", (project, 1)), ("settle", (project,)), ("free", (project,))):
                self._do(Step(-40, kind, OPERATORS[0], what))
        self._assert_holdings()
        for server in self._net.servers:
            keys: list[bytes] = self._net.look(server, b"KEYS", b"oq:*")
            folded = {key.rpartition(b":counts:")[0] for key in keys if key.endswith(b":counts:settled")}
            left = [key for key in keys if not key.endswith(_STAYS) and key.removesuffix(b":groups") not in folded]
            if left:
                raise BrokenError(f"{server.name} still has {sorted(left)}")
