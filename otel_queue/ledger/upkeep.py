"""Upkeep of the ledger: its contract, retention, and the check of its counts against what it tracks."""

import re
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Final, NamedTuple, TypeVar

from otel_queue.errors import OtelQueueError, ReadError, WriteError
from otel_queue.ledger.contract import Contract, Rule, parse_contract, read_contract
from otel_queue.ledger.exchange import NODES_OF_A_LEVEL, Exchange, accepted
from otel_queue.ledger.identity import UNDATED, day_of, days_up_to, end_of, number_of_day
from otel_queue.ledger.keys import ATTEMPTS, SETTLED, Keys, ProjectKeys
from otel_queue.ledger.project import PROCESSING
from otel_queue.ledger.states import delivery_state, event_state, in_processing
from otel_queue.redis_client import RedisLink, array, integer, names, request, scored, taking_apart, text, time_us

_T = TypeVar("_T")
_DAY_US: Final = 86_400_000_000
# A rule begins so many days ahead: no id of that day is known yet.
_DAYS_AHEAD: Final = 2
_WHAT: Final = "what the ledger has of days"
# A settled day joins the folded ones, which do not expire, when it is so old.
_FOLDED_AFTER_DAYS: Final = 400
# A call holds everybody else up: nodes, or ids, that one looks at.
_NODES_AT_ONCE: Final = 64
_IDS_AT_ONCE: Final = 512
# How far back days are looked for that are not listed.
_DAYS_BACK: Final = 1_100
# Reasons for which the next project is not tried either: it would wait as long.
_UNANSWERED: Final = frozenset({"connection", "timeout"})


@dataclass(frozen=True, slots=True)
class Difference:
    """A count that is not what the tracked ids add up to. `what` is a delivery status rank, or `e` for events.

    Where the index of deliveries in processing is off, `counted` is how many it has of the group.
    """

    project: str
    day: str
    group: int
    what: str
    counted: int
    tracked: int


class Settled(NamedTuple):
    """What `settle` ended: days that were settled, days that were folded, undated ids, groups that were given back."""

    days: int
    folded: int
    undated: int
    groups: int


class _Day(NamedTuple):
    """A day's counts and index, what its tracked ids say they should be, and the score it was looked at with.

    `ids` is how many ids it has, the forgotten ones too: a day without any is not tracked (any more).
    """

    counted: Mapping[str, int]
    indexed: set[bytes]
    tracked: Counter[str]
    processing: set[bytes]
    ids: int
    score: float


class Upkeep:
    """Operations of an operator or a nightly job. Each may be repeated; each raises ReadError or WriteError."""

    def __init__(self, link: RedisLink, *, namespace: str = "oq", timeout_seconds: float = 10.0) -> None:
        self._exchange = Exchange(link, timeout_seconds)
        self.keys = Keys(namespace)

    def begin(self, rule: Rule | None = None, max_skew_us: int = 5_000_000) -> bool:
        """Writes the contract of a ledger that begins now, by Redis's clock; False if it has one.

        Where projects are registered that have a contract, the ledger's own was lost, and theirs is written again.
        Raises ReadError with reason `contract` for a ledger of another protocol.
        """
        key = self.keys.contract
        try:
            self.contract()
        except ReadError as error:
            if error.reason != "no_birth":
                raise
        else:
            return False
        kept = max((contract.text() for contract in self._of_projects()), key=len, default=None)
        text = kept or Contract(self._now_us(), max_skew_us, (rule or Rule(),)).text()
        return self._exchange.one(request(key, [("SET", key, text, "NX")])) is not None

    def contract(self) -> Contract:
        """The ledger's contract; raises ReadError with reason `no_birth` where it has none."""
        return self._exchange.run(read_contract(self.keys), self.keys.contract)

    def add_rule(self, rule: Rule) -> Contract:
        """Makes the rule hold for ids from the day after tomorrow on, and gives it to every project.

        By then every writer knows it: each goes by what its project has. A call that was ended half way is to be
        repeated.
        """
        held, key = self.contract(), self.keys.contract
        grown = held
        if replace(rule, from_day=held.rules[-1].from_day) != held.rules[-1]:
            grown = replace(held, rules=(*held.rules, replace(rule, from_day=self.day_before(-_DAYS_AHEAD))))
            self._exchange.one(request(key, [("SET", key, grown.text(), "XX")]))
        for project in self.projects():
            of = self.keys.project(project)
            # Naming no group numbers none, and brings the contract along.
            self._exchange.call("number_groups", (of.meta, of.groups), (grown.text(), UNDATED))
        return grown

    def _of_projects(self) -> Iterator[Contract]:
        for project in self.projects():
            meta = self.keys.project(project).meta
            told = text(self._exchange.one(request(meta, [("HGET", meta, "contract")])))
            if told is not None:
                yield parse_contract(told)

    def day_before(self, days: int) -> str:
        """The UTC day `days` before today, YYYYMMDD, by Redis's clock."""
        return day_of(self._now_us() - days * _DAY_US)

    def _now_us(self) -> int:
        return time_us(self._exchange.one(request(self.keys.contract, [("TIME",)])))

    def close(self) -> None:
        """Ends the connections; a later operation opens new ones."""
        self._exchange.close()

    def projects(self) -> list[str]:
        """The registered projects, sorted."""
        reply = self._exchange.one(request(self.keys.projects, [("ZRANGE", self.keys.projects, 0, -1)]))
        return sorted(name.decode("utf-8", "replace") for name in names(reply))

    @taking_apart(_WHAT)
    def days(self, project: str, *, with_settled: bool = False) -> dict[str, float]:
        """The dated days of a project with counts, in order, and the sequence number of their last change."""
        key = self.keys.project(project).days
        reply = self._exchange.one(request(key, [("ZRANGE", key, 0, -1, "WITHSCORES")]))
        found = {member.decode(): score for member, score in scored(reply)}
        return {day: found[day] for day in sorted(found) if day != ATTEMPTS and (with_settled or day != SETTLED)}

    @taking_apart(_WHAT)
    def unlisted(self, project: str) -> list[str]:
        """The days of the last years that have counts and are not among the project's days, so that nobody reads them.

        `settled` and `attempts` are such days too. An expired day is none: what is left of it counts for nothing.
        """
        of = self.keys.project(project)
        days = days_up_to(time.time(), _DAYS_BACK)
        commands: list[tuple[bytes | str | int, ...]] = [("EXISTS", of.stored(day)) for day in days]
        # In this order a day that begins or expires meanwhile is not mistaken for one.
        commands += [("ZRANGE", of.days, 0, -1), ("HGET", of.meta, "expired")]
        *found, members, expired = self._exchange.ask([request(of.meta, commands)])[0]
        listed, closed = {member.decode() for member in names(members)}, (text(expired) or b"").decode()
        held = [day for day, exists in zip(days, found, strict=True) if integer(exists)]
        return [day for day in held if day not in listed and day > closed]

    @taking_apart(_WHAT)
    def list_again(self, project: str) -> list[str]:
        """Lists the days that are unlisted, as they are; returns which."""
        of = self.keys.project(project)
        days = self.unlisted(project)
        answers = array(self._exchange.call("list_days", (of.meta, of.days, *map(of.stored, days)), days))
        listed = [day for day, was_listed in zip(days, answers, strict=True) if was_listed == 1]
        self._announce(project, bool(listed))
        return listed

    def expire(self, project: str, through: str) -> int:
        """Takes all days up to `through` (YYYYMMDD) out of the counts; returns how many had any.

        Closed for good: raises OtelQueueError, and closes nothing, unless `through` is over by Redis's clock.
        """
        self._refuse_today(through)
        of = self.keys.project(project)
        return self._announce(project, integer(self._exchange.call("expire_day", (of.meta, of.days), ("", through))))

    def _announce(self, project: str, changed: int) -> int:
        """Tells readers of a project that changed; returns `changed`."""
        if changed:
            # Where a full Redis refuses it, readers find the change when they next look at the project.
            with suppress(WriteError):
                self._exchange.call("announce", (self.keys.projects,), (project,))
        return changed

    @taking_apart(_WHAT)
    def settle(self, project: str) -> Settled:
        """Ends what is due in a project: days past their tracking, old days, undated ids, groups without a count.

        Nothing that is exported changes by it. May be ended at any point, and repeated; any number may run at a time.
        """
        contract, now, of = self.contract(), self._now_us() // 1_000_000, self.keys.project(project)

        def is_past(day: str) -> bool:
            return end_of(day) + contract.rule_of(day).track_days * 86_400 < now

        settled_before, days = self._settled_through(of), list(self.days(project))
        past = [day for day in days if day > settled_before and is_past(day)]
        for day in past:
            self._settle_day(of, day)
        settled_now = max([settled_before, *past])
        folded = [day for day in days if day <= settled_now and end_of(day) + _FOLDED_AFTER_DAYS * 86_400 < now]
        for day in folded:
            self._exchange.call("fold_day", (of.meta, of.days), ("", day))
        self._announce(project, len(folded))
        undated = self._end_undated(of, settled_now) if settled_now and self._has_undated(of) else 0
        return Settled(len(past), len(folded), undated, self.free_groups(project) if past or folded or undated else 0)

    def _settled_through(self, of: ProjectKeys) -> str:
        return (text(self._exchange.one(request(of.meta, [("HGET", of.meta, "settled")]))) or b"").decode()

    def _settle_day(self, of: ProjectKeys, day: str) -> None:
        first = 0
        for nodes in (1, *NODES_OF_A_LEVEL):
            starts = range(first, first + nodes, _NODES_AT_ONCE)
            full = [
                self._exchange.call(
                    "keep_open",
                    (of.meta, of.deliveries(day)),
                    ("", day, start, min(start + _NODES_AT_ONCE, first + nodes) - 1),
                )
                for start in starts
            ]
            if not any(full):
                break
            first += nodes
        self._exchange.call("settle_day", (of.meta, of.deliveries(day), of.events(day)), ("", day))

    def _has_undated(self, of: ProjectKeys) -> bool:
        return integer(self._exchange.one(request(of.undated, [("EXISTS", of.undated)]))) == 1

    def _end_undated(self, of: ProjectKeys, through: str) -> int:
        ended = 0
        while looked := integer(self._exchange.call("end_undated", (of.meta,), ("", through, _IDS_AT_ONCE))):
            ended += looked
        return ended

    def free_groups(self, project: str) -> int:
        """Gives back the groups that nothing is counted under; none if the project changes meanwhile, or lost a day."""
        if self.unlisted(project):
            return 0
        of = self.keys.project(project)
        sequence = text(self._exchange.one(request(of.meta, [("HGET", of.meta, "sequence")])))
        days = [*self.days(project), SETTLED]
        commands = [("HKEYS", of.groups), *(("HKEYS", of.counts(day)) for day in days)]
        held, *counted = (names(accepted(reply)) for reply in self._exchange.ask([request(of.meta, commands)])[0])
        used = {field.partition(b":")[0] for fields in counted for field in fields}
        unused = [name[1:] for name in held if name.startswith(b"#") and name[1:] not in used]
        freed = 0
        for start in range(0, len(unused), _IDS_AT_ONCE):
            words = ("", "", sequence or "", *unused[start : start + _IDS_AT_ONCE])
            freed += integer(self._exchange.call("free_groups", (of.meta, of.groups), words))
        return freed

    def _refuse_today(self, through: str) -> None:
        if not re.fullmatch(r"\d{8}", through, re.ASCII):
            raise OtelQueueError(f"the day must be YYYYMMDD, as in 20261124, not {through!r}")
        if through >= (today := self.day_before(0)):
            # Before anything is closed; the script looks too, but at one day at a time.
            raise OtelQueueError(
                f"{through} is not over by Redis's clock, where it is {today}: days are closed for good, so only those "
                "before today can be"
            )

    def check(self, project: str) -> list[Difference]:
        """Compares each day's counts and index with its tracked deliveries and events; reads every one of them.

        Settled counts cannot be checked, nor days whose tracking has ended: their deliveries are no longer held. A day
        that changes meanwhile is looked at again.
        """
        return [difference for day in self.days(project) for difference in self.check_day(project, day)]

    @taking_apart(_WHAT)
    def check_day(self, project: str, day: str) -> list[Difference]:
        """As `check`, of one day. Raises ReadError with reason `busy` for a day that changes all the time."""
        if day <= self._settled_through(self.keys.project(project)):
            return []
        held = self._stable(project, day)
        if not held.ids:
            return []  # no longer tracked, and not settled yet: nothing says that the counts are wrong
        off = [(field, held.counted.get(field, 0), held.tracked[field]) for field in {*held.counted, *held.tracked}]
        found = [_difference(project, day, *each) for each in sorted(off) if each[1] != each[2]]
        for group in sorted({member[:4] for member in held.indexed ^ held.processing}):
            indexed, processing = (
                sum(member.startswith(group) for member in members) for members in (held.indexed, held.processing)
            )
            field = f"{int.from_bytes(group, 'big')}:{PROCESSING}"
            found.append(_difference(project, day, field, indexed, processing))
        return found

    @taking_apart(_WHAT)
    def repair(self, project: str, day: str) -> bool:
        """Counts a day anew from what is tracked; False if it changed meanwhile and is to be repaired again.

        Raises ReadError with reason `untracked` for a day of which nothing is tracked (any more): its counts would go.
        """
        held = self._stable(project, day)
        if not held.ids or day <= self._settled_through(self.keys.project(project)):
            raise ReadError("untracked", f"{project} {day} has no tracked ids; its counts cannot be made from them")
        of = self.keys.project(project)
        pairs = [word for field, count in sorted(held.tracked.items()) for word in (field, count)]
        members = sorted(held.processing)
        arguments = ("", day, f"{held.score:.17g}", len(pairs) // 2, len(members), *pairs, *members)
        own = (of.meta, of.days, of.counts(day), of.processing(day))
        return bool(self._announce(project, integer(self._exchange.call("replace_counts", own, arguments))))

    def _stable(self, project: str, day: str) -> _Day:
        """The day as it was while nothing changed it."""
        of = self.keys.project(project)
        for _ in range(10):
            before = self.days(project).get(day)
            counts, index = self._exchange.ask(
                [request(of.meta, [("HGETALL", of.counts(day)), ("ZRANGE", of.processing(day), 0, -1)])]
            )[0]
            tracked, processing, ids = self._tally(of, day)
            if before is not None and self.days(project).get(day) == before:
                flat = names(counts)
                counted = {name.decode(): int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}
                return _Day(counted, set(names(index)), tracked, processing, ids, before)
        raise ReadError("busy", f"{project} {day} changes all the time; check it when it is at rest")

    def _tally(self, of: ProjectKeys, day: str) -> tuple[Counter[str], set[bytes], int]:
        tracked: Counter[str] = Counter()
        processing: set[bytes] = set()
        ids = 0
        for under, delivery, state in self._held(of, day, b"d", of.deliveries(day)):
            ids += 1
            if state:
                held = delivery_state(under, delivery, state)
                tracked[f"{held.group}:{held.rank}"] += 1
                if held.rank == PROCESSING:
                    processing.add(in_processing(held.group, held.created_us, delivery))
        for under, event, state in self._held(of, day, b"e", of.events(day)):
            ids += 1
            if state:
                tracked[f"{event_state(under, event, state).group}:e"] += 1
        return tracked, processing, ids

    def _held(self, of: ProjectKeys, day: str, kind: bytes, base: bytes) -> Iterator[tuple[str, bytes, bytes]]:
        """What counts under a day: the day that an id is kept under, its stored form and its state."""
        for id_, state in self._exchange.nodes(of.meta, base):
            yield day, id_, state
        number = number_of_day(day)
        for id_, state in self._exchange.undated(of, kind, number):
            yield UNDATED, id_, state


def _difference(project: str, day: str, field: str, counted: int, tracked: int) -> Difference:
    group, _, what = field.partition(":")
    return Difference(project, day, int(group), what, counted, tracked)


def close_each(
    projects: Iterable[str], close: Callable[[str], _T]
) -> Iterator[tuple[str, _T | ReadError | WriteError]]:
    """Each project with what `close` returned for it, or the error where it was refused: others have their turn.

    Raises ReadError or WriteError where Redis does not answer, and what else `close` raises.
    """
    for project in projects:
        closed: _T | ReadError | WriteError
        try:
            closed = close(project)
        except (ReadError, WriteError) as error:
            if error.reason in _UNANSWERED:
                raise
            closed = error
        yield project, closed
