"""What a server's ledger holds, worked out from docs/ledger-protocol.md in plain Python, call by call.

Unlike the oracle of tests/ledger it follows the order of the calls and Redis's time, so it knows what came late, what
was set back, what was settled, and what a server has lost. It knows nothing of bytes and TTLs, and of nodes only how
many ids the first one holds.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Final

from tests.simulation.project import (
    CREATED,
    CREATED_BY_ROW,
    DAY_SECONDS,
    FIRST_FINAL,
    NODE_ENTRIES,
    PROCESSING,
    ROW,
    SET,
    SETTLED,
    UNDATED,
    Ahead,
    Attempt,
    Delivery,
    Event,
    Project,
    Told,
    day_of,
    end_of,
    rule_of,
    tracked_until,
)

_WEEK: Final = 7
_FARTHEST: Final = 2**55


class Reference:
    """The projects of one server, and its list of projects with the numbers of their announcements."""

    def __init__(self) -> None:
        self.projects: dict[str, Project] = {}
        self.announced: dict[str, int] = {}

    def call(self, script: str, project: str, arguments: Sequence[bytes], now_us: int, reply: object) -> None:
        """A call that Redis ran without an error, and what it answered."""
        if script == "announce":
            number = max(self.announced.values(), default=0) + 1
            self.announced.update((name.decode(), number) for name in arguments)
            return
        held = self.projects.setdefault(project, Project())
        _forget_old(held, now_us // 1_000_000)
        run = _Call(held, arguments[0].decode(), arguments[1].decode(), now_us, reply)
        getattr(run, script)(arguments[2:])

    def pass_time(self, now_us: int) -> None:
        for project in self.projects.values():
            _forget_old(project, now_us // 1_000_000)


def _forget_old(project: Project, now: int) -> None:
    """Ids end a week after their tracking where nobody settled their day, attempts a day after their window.

    Where somebody began to settle it, the copies stay.
    """

    contract, settling = project.contract, project.marks.get("settling")

    def is_forgotten(day: str) -> bool:
        return day != UNDATED and tracked_until(contract, day) + _WEEK * DAY_SECONDS <= now

    def is_attempt_forgotten(day: str) -> bool:
        return day != UNDATED and end_of(day) + (rule_of(contract, day).attempt_days + 1) * DAY_SECONDS <= now

    if settling and is_forgotten(settling):
        of_day = [(key[1], held) for key, held in project.deliveries.items() if key[0] == settling]
        changed = project.changed_while_settling
        copied = [each for index, each in enumerate(of_day) if index < NODE_ENTRIES or each[0] in changed]
        copied = of_day if project.copied_whole else copied
        project.open.update({id_: held for id_, held in copied if held.status < FIRST_FINAL})
    for ids in (project.deliveries, project.events):
        for key in [key for key in ids if is_forgotten(key[0])]:
            del ids[key]
    for key in [key for key in project.attempt_ids if is_attempt_forgotten(key[0])]:
        del project.attempt_ids[key]


class _Call:
    """One call of a script; a method for each script, with the arguments behind the day."""

    def __init__(self, project: Project, told: str, day: str, now_us: int, reply: object) -> None:
        self.of, self.reply = project, reply
        self.now_us, self.now = now_us, now_us // 1_000_000
        self.today = day_of(self.now)
        self.told, self.day = told, day
        held = project.contract
        self.contract = told if told.startswith(held) and len(told) > len(held) else held
        self.latest = now_us + int(self.contract.split(";")[2])
        self.rule = rule_of(self.contract, day or UNDATED)
        self.tracked_until = 0
        if day not in (UNDATED, ""):
            self.tracked_until = tracked_until(self.contract, day)
        self.changed: set[str] = set()
        self.results: Counter[str] = Counter()

    def adopt(self) -> None:
        self.of.contract = self.contract

    def is_past(self) -> bool:
        return 0 < self.tracked_until < self.now

    def clamp(self, at: int) -> tuple[int, bool]:
        if at <= self.latest:
            return max(at, 0), False
        self.results["clamped"] += 1
        return self.now_us, True

    def number_of(self, labels: bytes) -> int:
        groups = self.of.groups
        if labels not in groups:
            if len(groups) >= self.rule.most_groups:
                return 0
            groups[labels] = self.new_number()
        return groups[labels]

    def new_number(self) -> int:
        self.of.last_group += 1
        return self.of.last_group

    def move(self, member: str, before: tuple[int, str] | None, after: tuple[int, str]) -> None:
        counts = self.of.counts.setdefault(member, Counter())
        if before is not None:
            counts[before] -= 1
        counts[after] += 1
        for key in [key for key, count in counts.items() if not count]:
            del counts[key]

    def conclude(self, kind: str) -> None:
        self.adopt()
        if self.results["changed"]:
            self.of.sequence = (self.of.sequence or 0) + 1
        elif self.results["late"]:
            self.of.sequence = self.of.sequence or 0
        for what, result in (("duplicate", "unchanged"), ("late", "late"), ("clamped", "clamped")):
            if self.results[result]:
                self.of.tallies[f"{what}:{kind}"] += self.results[result]

    def record_deliveries(self, words: Sequence[bytes]) -> None:
        for start in range(0, len(words), 10):
            self._merge_delivery(*words[start : start + 10])
        self.conclude("delivery")

    def _merge_delivery(
        self, id_: bytes, _: bytes, status: bytes, told_at: bytes, record_kind: bytes, created: bytes, kind: bytes,
        *labels: bytes,
    ) -> None:  # fmt: skip
        project, is_settled = self.of, self.day != UNDATED and self.of.is_settled(self.day)
        before = project.open.get(id_) if is_settled else project.deliveries.get((self.day, id_))
        day = self.day if self.day != UNDATED else before.day if before else self.today
        if project.is_expired(day) or (not before and (project.is_settled(day) or self.is_past())):
            self.results["late"] += 1
            return
        if self.day == UNDATED and project.is_settled(day):
            project.open_undated.add(id_)
        at, was_ahead = self.clamp(int(told_at))
        is_set = int(record_kind) != CREATED
        after = self._with_status(before, day, int(status), at, is_set, int(told_at) if was_ahead else None)
        if int(kind) > after.created_kind or (int(kind) == after.created_kind and int(created) < after.created):
            after = _changed(after, created=int(created), created_kind=int(kind))
        after = self._with_labels(before, after, Told(int(record_kind), at), labels)
        if after == before:
            self.results["unchanged"] += 1
            return
        self.results["changed"] += 1
        member = project.counted_as(day)
        if is_settled:
            project.open[id_] = after
            if after.status >= FIRST_FINAL:
                del project.open[id_]
        else:
            project.deliveries[self.day, id_] = after
            if day == project.marks.get("settling") and self.day != UNDATED:
                project.changed_while_settling.add(id_)
            if project.is_settled(day) and after.status >= FIRST_FINAL:
                del project.deliveries[self.day, id_]
                project.open_undated.discard(id_)
        self.move(member, (before.group, str(before.status)) if before else None, (after.group, str(after.status)))
        index = project.index.setdefault(member, set())
        if before and before.status == PROCESSING:
            index.discard((before.group, before.created, id_))
        if after.status == PROCESSING:
            index.add((after.group, after.created, id_))

    def _with_status(
        self, before: Delivery | None, day: str, status: int, at: int, is_set: bool, ahead_at: int | None
    ) -> Delivery:
        """As `before`, or new, with the status if it stands; `ahead_at` is its time as told if it was set back."""
        held = before or Delivery(day, 0, 0, False, 0, 0, (), -1)
        if ahead_at is not None:
            ahead = Ahead(is_set, min(ahead_at, _FARTHEST), status)
            if held.ahead is not None and not ahead > held.ahead:
                return held
            held = _changed(held, ahead=ahead)
        if held.status and (is_set, at, status) <= (held.is_set, held.status_at, held.status):
            return held
        return _changed(held, status=status, status_at=at, is_set=is_set)

    def _with_labels(self, before: Delivery | None, after: Delivery, record: Told, words: Sequence[bytes]) -> Delivery:
        held = _labels(self.of, before)
        said = [record._replace(value=word) for word in words]
        merged = [_better(one, other) for one, other in zip(held, said, strict=True)]
        group = after.group
        if before is None or [label.value for label in merged] != [label.value for label in held]:
            group = self.number_of(b"\0".join(label.value for label in merged))
        return _changed(after, told=_kept_of(merged, after), group=group)

    def record_events(self, words: Sequence[bytes]) -> None:
        for start in range(0, len(words), 4):
            self._merge_event(*words[start : start + 4])
        self.conclude("event")

    def _merge_event(self, id_: bytes, _: bytes, told_at: bytes, source: bytes) -> None:
        project, key = self.of, (self.day, id_)
        before = project.events.get(key) if self.day == UNDATED or not project.is_settled(self.day) else None
        day = self.day if self.day != UNDATED else before.day if before else self.today
        if project.is_expired(day) or project.is_settled(day) or (not before and self.is_past()):
            self.results["late"] += 1
            return
        at, _was_ahead = self.clamp(int(told_at))
        if before is not None:
            held = project.labels_of(before.group).removeprefix(b"event")
            if not _is_better_source((at, source), (before.at, held)):
                self.results["unchanged"] += 1
                return
        self.results["changed"] += 1
        after = Event(day, at, self.number_of(b"event" + source))
        project.events[key] = after
        self.move(day, (before.group, "e") if before else None, (after.group, "e"))

    def record_attempts(self, words: Sequence[bytes]) -> None:
        if self.day != UNDATED:
            self.tracked_until = end_of(self.day) + self.rule.attempt_days * DAY_SECONDS
        for id_, field_ in zip(words[::3], words[2::3], strict=True):
            if (self.day, id_) in self.of.attempt_ids:
                self.results["unchanged"] += 1
            elif self.is_past():
                self.results["late"] += 1
            else:
                self.results["changed"] += 1
                counted = self._count_attempt(field_)
                if counted not in self.of.attempt_labels:
                    self.of.attempt_labels[counted] = self.new_number()
                day = self.today if self.day == UNDATED else self.day
                self.of.attempt_ids[self.day, id_] = Attempt(day, self.of.attempt_labels[counted])
        self.conclude("attempt")

    def _count_attempt(self, counted: bytes) -> bytes:
        attempts = self.of.attempts
        if counted not in attempts and len(attempts) >= self.rule.most_groups:
            counted = b"other\0" + counted.split(b"\0", 1)[1]
        attempts[counted] += 1
        return counted

    def describe_project(self, words: Sequence[bytes]) -> None:
        self.adopt()
        told_at, names = int(words[0]), (words[1], words[2], words[3])
        at = min(told_at, self.latest)
        held_at, held = self.of.described
        if held_at > self.latest:
            held_at = 0
        if (at, b"\0".join(names)) > (held_at, b"\0".join(held)):
            self.of.described = at, names
            self.of.sequence = (self.of.sequence or 0) + 1
        if told_at > self.latest:
            self.of.tallies["clamped:project"] += 1

    def expire_day(self, _: Sequence[bytes]) -> None:
        project, day = self.of, self.day
        self.adopt()
        project.sequence = project.sequence or 0
        if day >= self.today:
            project.tallies["clamped:day"] += 1
            return
        gone = [member for member in project.counts if member <= day]
        for member in gone:
            del project.counts[member]
            project.index.pop(member, None)
        for ids in (project.deliveries, project.events):
            for key in [key for key in ids if key[0] <= day]:
                del ids[key]
        for id_ in [id_ for id_, held in project.open.items() if held.day <= day]:
            del project.open[id_]
        for id_ in [id_ for id_ in project.open_undated if project.deliveries[UNDATED, id_].day <= day]:
            del project.deliveries[UNDATED, id_]
            project.open_undated.discard(id_)
        project.marks["expired"] = max(day, project.marks.get("expired", ""))
        if gone:
            project.sequence += 1

    def keep_open(self, words: Sequence[bytes]) -> None:
        project = self.of
        if project.is_settled(self.day):
            return
        is_first = words[0] == b"0"
        if project.marks.get("settling") != self.day:
            project.copied_whole, project.changed_while_settling = False, set()
        project.marks["settling"] = self.day
        project.copied_whole = project.copied_whole or not is_first or self.reply == 0

    def settle_day(self, _: Sequence[bytes]) -> None:
        project, day = self.of, self.day
        if project.marks.get("settling") != day:
            return
        self.adopt()
        for key in [key for key in project.deliveries if key[0] == day]:
            held = project.deliveries.pop(key)
            if held.status < FIRST_FINAL:
                project.open[key[1]] = held
        for key in [key for key in project.events if key[0] == day]:
            del project.events[key]
        del project.marks["settling"]
        project.marks[SETTLED] = day
        assert not self._is_any_tracked(day), f"{day} is settled, and a day before it is still tracked"

    def _is_any_tracked(self, through: str) -> bool:
        days = [day_of(end_of(through) - back * DAY_SECONDS - 1) for back in range(40)]
        return any(end_of(day) + rule_of(self.contract, day).track_days * DAY_SECONDS >= self.now for day in days)

    def fold_day(self, _: Sequence[bytes]) -> None:
        project, day = self.of, self.day
        self.adopt()
        project.marks["folded"] = max(day, project.marks.get("folded", ""))
        project.sequence = project.sequence or 0
        if day not in project.counts:
            return
        project.counts.setdefault(SETTLED, Counter()).update(project.counts.pop(day))
        project.index.setdefault(SETTLED, set()).update(project.index.pop(day, set()))
        project.sequence += 1

    def end_undated(self, words: Sequence[bytes]) -> None:
        project, most = self.of, int(words[0])
        listed = sorted(_listed(project, self.day))
        assert len(listed) < most, "the reference does not know which of so many ids the script looks at"
        for _day, kind, id_ in listed:
            if kind == "e":
                del project.events[UNDATED, id_]
            elif kind == "a":
                del project.attempt_ids[UNDATED, id_]
            elif project.deliveries[UNDATED, id_].status >= FIRST_FINAL or project.is_expired(_day):
                del project.deliveries[UNDATED, id_]
            else:
                project.open_undated.add(id_)

    def free_groups(self, words: Sequence[bytes]) -> None:
        if str(self.of.sequence).encode() == words[0]:
            numbers = {int(word) for word in words[1:]}
            self.of.groups = {labels: number for labels, number in self.of.groups.items() if number not in numbers}

    def number_groups(self, words: Sequence[bytes]) -> None:
        self.adopt()
        for labels in words:
            self.number_of(labels)


def _listed(project: Project, through: str) -> Iterator[tuple[str, str, bytes]]:
    """Undated ids of days up to `through`: the day, the kind's letter, the id."""
    for (kept, id_), held in project.deliveries.items():
        if kept == UNDATED and held.day <= through and id_ not in project.open_undated:
            yield held.day, "d", id_
    for (kept, id_), event in project.events.items():
        if kept == UNDATED and event.day <= through:
            yield event.day, "e", id_
    for (kept, id_), attempt in project.attempt_ids.items():
        if kept == UNDATED and attempt.day <= through:
            yield attempt.day, "a", id_


def _changed(held: Delivery, **fields: object) -> Delivery:
    return Delivery(**{name: fields.get(name, getattr(held, name)) for name in Delivery.__slots__})  # type: ignore[arg-type]


def _labels(project: Project, held: Delivery | None) -> list[Told]:
    """What is known of a delivery's labels; values of a group beyond the cap are not."""
    if held is None:
        return [Told(), Told(), Told()]
    values = (project.labels_of(held.group) or b"\0\0").split(b"\0")
    return [Told(kind, at, value) for (kind, at), value in zip(held.told, values, strict=True)]


def _kept_of(labels: Sequence[Told], held: Delivery) -> tuple[tuple[int, int], ...]:
    """Kind and time of each label as they are kept: once, if they agree, and the kind can be told from the delivery."""
    told = [(label.kind, label.at) for label in labels if label.value]
    first = told[0] if told else (SET, held.status_at)
    kinds = (SET, ROW if held.created_kind == CREATED_BY_ROW else CREATED)
    if any(each != first for each in told) or first[0] not in kinds:
        return tuple((label.kind, label.at) if label.value else (0, 0) for label in labels)
    return (first, first, first)


def _better(held: Told, said: Told) -> Told:
    if not said.value or not held.value:
        return said if said.value else held
    # Of two rows the one that was read later.
    return min(held, said, key=lambda label: (-label.kind, -label.at if label.kind == ROW else label.at, label.value))


def _is_better_source(said: tuple[int, bytes], held: tuple[int, bytes]) -> bool:
    if bool(said[1]) != bool(held[1]):
        return bool(said[1])
    return said < held
