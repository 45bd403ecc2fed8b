"""Upkeep of the ledger: its contract, and the days that end."""

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, TypeVar

from otel_queue.errors import OtelQueueError, ReadError, WriteError
from otel_queue.ledger.administration import NODES_OF_A_LEVEL, Clock, Marks, accepted, dated, marks_of
from otel_queue.ledger.check import Check
from otel_queue.ledger.contract import Contract, Rule, parse_contract
from otel_queue.ledger.identity import UNDATED, days_up_to, end_of, number_of_day
from otel_queue.ledger.keys import SETTLED, ProjectKeys
from otel_queue.redis_client import Reply, Request, array, integer, names, request, scored, taking_apart, text

_T = TypeVar("_T")
# A rule begins so many days ahead: no id of that day is known yet.
_DAYS_AHEAD: Final = 2
_WHAT: Final = "what the ledger has of days"
# A settled day joins the folded ones, which do not expire, when it is so old.
_FOLDED_AFTER_DAYS: Final = 400
# A call holds everybody else up: nodes, or ids, that one looks at.
_NODES_AT_ONCE: Final = 64
_IDS_AT_ONCE: Final = 512
# Projects that are looked at in one round trip.
_PROJECTS_AT_ONCE: Final = 500
# How far back days are looked for that are not listed.
_DAYS_BACK: Final = 1_100
# Reasons for which the next project is not tried either: it would wait as long.
_UNANSWERED: Final = frozenset({"connection", "timeout"})


class Settled(NamedTuple):
    """What `settle` ended: days that were settled, days that were folded, undated ids, groups that were given back."""

    days: int
    folded: int
    undated: int
    groups: int


class _Due(NamedTuple):
    """Days of a project to settle and to fold, the last settled day after that, and whether undated ids go with it."""

    expires: bool
    past: list[str]
    folded: list[str]
    settled: str
    has_undated: bool


_NOTHING: Final = Settled(0, 0, 0, 0)


class Upkeep(Check):
    """Operations of an operator or a nightly job. Each may be repeated; each raises ReadError or WriteError."""

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
        text = kept or Contract(self.now_us(), max_skew_us, (rule or Rule(),)).text()
        return self._one(key, "SET", key, text, "NX") is not None

    def add_rule(self, rule: Rule) -> Contract:
        """Makes the rule hold for ids from the day after tomorrow on, and gives it to every project.

        By then every writer knows it: each goes by what its project has. A call that was ended half way is to be
        repeated.
        """
        held, key = self.contract(), self.keys.contract
        grown = held
        if replace(rule, from_day=held.rules[-1].from_day) != held.rules[-1]:
            grown = replace(held, rules=(*held.rules, replace(rule, from_day=self.day_before(-_DAYS_AHEAD))))
            self._one(key, "SET", key, grown.text(), "XX")
        own = map(self.keys.project, self.projects())
        # Naming no group numbers none, and brings the contract along.
        self._calls("number_groups", (((of.meta, of.groups), (grown.text(), UNDATED)) for of in own))
        return grown

    def _of_projects(self) -> Iterator[Contract]:
        metas = [self.keys.project(project).meta for project in self.projects()]
        for answer in self._ask([request(meta, [("HGET", meta, "contract")]) for meta in metas]):
            told = text(accepted(answer[0]))
            if told is not None:
                yield parse_contract(told)

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
        *found, members, expired = self._ask([request(of.meta, commands)])[0]
        listed, closed = {member.decode() for member in names(members)}, (text(expired) or b"").decode()
        held = [day for day, exists in zip(days, found, strict=True) if integer(exists)]
        return [day for day in held if day not in listed and day > closed]

    @taking_apart(_WHAT)
    def list_again(self, project: str) -> list[str]:
        """Lists the days that are unlisted, as they are; returns which."""
        of = self.keys.project(project)
        days = self.unlisted(project)
        answers = array(self._call("list_days", (of.meta, of.days, *map(of.stored, days)), days))
        listed = [day for day, was_listed in zip(days, answers, strict=True) if was_listed == 1]
        if listed:
            self._announce(project)
        return listed

    def expire(self, project: str, through: str) -> int:
        """Takes all days up to `through` (YYYYMMDD) out of the counts; returns how many had any.

        Closed for good: raises OtelQueueError, and closes nothing, unless `through` is over by Redis's clock.
        """
        self._refuse_today(through)
        return self._expire(project, through)

    def _expire(self, project: str, through: str) -> int:
        of = self.keys.project(project)
        had = integer(self._call("expire_day", (of.meta, of.days), ("", through)))
        if had:
            self._announce(project)
        return had

    def settle(self, project: str) -> Settled:
        """Ends what is due in a project: days past their tracking, old days, undated ids, groups without a count.

        Nothing that is exported changes by it. May be ended at any point, and repeated; any number may run at a time.
        """
        [(_, settled)] = self.settle_each([project])
        if not isinstance(settled, Settled):
            raise settled
        return settled

    def settle_each(
        self, projects: Sequence[str], through: str | None = None
    ) -> Iterator[tuple[str, Settled | ReadError | WriteError]]:
        """Settles each project, and expires its days up to `through` before, where that is given and is over.

        A project where nothing is due costs one request, and many of them share a round trip. One that is refused, or
        whose node does not answer, comes with its error; others have their turn. Raises as `close_each`.
        """
        clock = self.clock()
        for start in range(0, len(projects), _PROJECTS_AT_ONCE):
            chunk = projects[start : start + _PROJECTS_AT_ONCE]
            looks = dict(zip(chunk, self._each(list(map(self._look, chunk))), strict=True))
            for project, look in looks.items():
                if isinstance(look, ReadError):
                    yield project, look
                    continue

                def end(project: str, look: list[Reply] = look) -> Settled:
                    due = _due(look, clock, through)
                    return _NOTHING if due is None else self._end(project, due, through)

                yield from close_each([project], end)

    def _look(self, project: str) -> Request:
        of = self.keys.project(project)
        listed = ("ZRANGE", of.days, 0, -1, "WITHSCORES")
        first = ("ZRANGE", of.undated, 0, 0, "WITHSCORES")
        return request(of.meta, [("HMGET", of.meta, *Marks._fields), listed, first])

    @taking_apart(_WHAT)
    def _end(self, project: str, due: _Due, through: str | None) -> Settled:
        of = self.keys.project(project)
        if due.expires and through is not None:
            self._expire(project, through)
        for day in due.past:
            self._settle_day(of, day)
        for day in due.folded:
            self._call("fold_day", (of.meta, of.days), ("", day))
        if due.folded:
            self._announce(project)
        undated = self._end_undated(of, due.settled) if due.has_undated else 0
        has_ended = due.past or due.folded or undated
        return Settled(len(due.past), len(due.folded), undated, self.free_groups(project) if has_ended else 0)

    def _settle_day(self, of: ProjectKeys, day: str) -> None:
        first = 0
        for nodes in (1, *NODES_OF_A_LEVEL):
            starts = range(first, first + nodes, _NODES_AT_ONCE)
            full = [
                self._call(
                    "keep_open",
                    (of.meta, of.deliveries(day)),
                    ("", day, start, min(start + _NODES_AT_ONCE, first + nodes) - 1),
                )
                for start in starts
            ]
            if not any(full):
                break
            first += nodes
        self._call("settle_day", (of.meta, of.deliveries(day), of.events(day)), ("", day))

    def _end_undated(self, of: ProjectKeys, through: str) -> int:
        ended = 0
        while looked := integer(self._call("end_undated", (of.meta,), ("", through, _IDS_AT_ONCE))):
            ended += looked
        return ended

    def free_groups(self, project: str) -> int:
        """Gives back the groups that nothing is counted under; none if the project changes meanwhile, or lost a day."""
        if self.unlisted(project):
            return 0
        of = self.keys.project(project)
        sequence = text(self._one(of.meta, "HGET", of.meta, "sequence"))
        days = [*self.days(project), SETTLED]
        commands = [("HKEYS", of.groups), *(("HKEYS", of.counts(day)) for day in days)]
        held, *counted = (names(accepted(reply)) for reply in self._ask([request(of.meta, commands)])[0])
        used = {field.partition(b":")[0] for fields in counted for field in fields}
        unused = [name[1:] for name in held if name.startswith(b"#") and name[1:] not in used]
        freed = 0
        for start in range(0, len(unused), _IDS_AT_ONCE):
            words = ("", "", sequence or "", *unused[start : start + _IDS_AT_ONCE])
            freed += integer(self._call("free_groups", (of.meta, of.groups), words))
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


@taking_apart(_WHAT)
def _due(look: list[Reply], clock: Clock, through: str | None) -> _Due | None:
    """What is to be ended in a project that looks so; None for nothing."""
    marks = marks_of(accepted(look[0]))
    listed, undated = dated(accepted(look[1])), scored(accepted(look[2]))
    expires = through is not None and (marks.expired < through or any(day <= through for day in listed))
    days = [day for day in listed if through is None or day > through]
    now = clock.now_us // 1_000_000
    past = [
        day
        for day in days
        if day > marks.settled and end_of(day) + clock.contract.rule_of(day).track_days * 86_400 < now
    ]
    settled = max([marks.settled, *past])
    folded = [day for day in days if day <= settled and end_of(day) + _FOLDED_AFTER_DAYS * 86_400 < now]
    has_undated = bool(settled) and any(number <= number_of_day(settled) for _, number in undated)
    due = _Due(expires, past, folded, settled, has_undated)
    return due if expires or past or folded or has_undated else None


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
