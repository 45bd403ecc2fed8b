"""What changed of one project since it was last read: costs by the days that changed."""

import struct
import time
from collections.abc import Iterable, Mapping
from typing import Final

from otel_queue.errors import ReadError
from otel_queue.ledger.identity import days_up_to
from otel_queue.ledger.keys import ATTEMPTS, ProjectKeys
from otel_queue.ledger.project import PROCESSING, TALLIED, Day, Labels, Project, label_of
from otel_queue.ledger.replication import HISTORY, history_of
from otel_queue.lifecycle import STATUSES
from otel_queue.redis_client import Reading, Reply, array, decimal, integer, names, request, scored, taking_apart, text

_TALLIES: Final = tuple(f"{what}:{kind}" for what, kinds in TALLIED.items() for kind in kinds)
# Texts about the project as a whole.
_NAMES: Final = ("project_name", "organisation_id", "organisation_name")
_TEXTS: Final = (*_NAMES, "approximate", "expired")
# A reader that has nothing to remember looks so many days back for counts of days that are not listed.
_DAYS_BACK: Final = 31


def read_project(project: Project, keys: ProjectKeys) -> Reading[Project]:
    """Makes it what the ledger has of it now. One round trip if nothing changed, up to five more if something did.

    Raises ReadError where a part of it cannot be read, or is lost.
    """
    try:
        with taking_apart(f"what the ledger has of {project.project}"):
            return (yield from _read_changes(project, keys))
    except ReadError:
        project.memory = object()  # what comes back may be less
        raise


def _read_changes(project: Project, keys: ProjectKeys) -> Reading[Project]:
    # The id first: what is read after it is of that history, or of a later one that the next read will tell.
    told_history, meta = yield request(keys.meta, [HISTORY, ("HMGET", keys.meta, "sequence", *_TEXTS, *_TALLIES)])
    history = history_of(told_history) or project.history
    if history != project.history:
        project.forget()
        project.history = history
    told_sequence, *values = (text(value) for value in array(meta))
    if told_sequence is None:
        project.forget()
        raise ReadError("project_lost", f"{project.project} is registered and has no meta")
    described, tallies = values[: len(_TEXTS)], values[len(_TEXTS) :]
    *told, project.approximate, expired = ((value or b"").decode("utf-8", "replace") for value in described)
    project.names = told[0], told[1], told[2]
    project.tallies = {name: decimal(value) for name, value in zip(_TALLIES, tallies, strict=True) if value}
    sequence = decimal(told_sequence)
    if sequence == project.sequence:
        return project
    replies = yield request(keys.days, [_listed(keys)])
    scores = _scores(replies[0])
    went_back = any(scores.get(name, day.score) < day.score for name, day in project.days.items())
    if went_back or sequence < project.sequence:
        project.forget()  # within a history numbers only grow
    yield from _look_for_unlisted(project, keys, expired, scores)
    for gone in set(project.days) - set(scores):
        project.put(gone, None)
    changed = [day for day, score in scores.items() if day not in project.days or project.days[day].score != score]
    yield from _read_days(project, keys, {day: scores[day] for day in changed})
    project.sequence = sequence
    return project


def _listed(keys: ProjectKeys) -> tuple[bytes | str | int, ...]:
    return ("ZRANGE", keys.days, 0, -1, "WITHSCORES")


def _scores(reply: Reply) -> dict[str, float]:
    return {member.decode(): score for member, score in scored(reply)}


def _look_for_unlisted(project: Project, keys: ProjectKeys, expired: str, listed: Mapping[str, float]) -> Reading[None]:
    """Raises ReadError where a day has counts and is not listed: without it they would read as nothing.

    Looks at the days that were there the last time, or at all of the last weeks for a project that was not read yet.
    """
    known = project.days if project.sequence >= 0 else days_up_to(time.time(), _DAYS_BACK)
    missing = [day for day in known if day not in listed and day > expired]
    if not missing:
        return
    [found] = yield request(keys.days, [("EXISTS", *(keys.stored(day) for day in missing))])
    if not integer(found):
        return
    # Once more, behind the list: a day may have begun or ended meanwhile.
    again, *replies = yield request(keys.days, [_listed(keys), *(("HGETALL", keys.stored(day)) for day in missing)])
    listed = _scores(again)
    if unlisted := [day for day, reply in zip(missing, replies, strict=True) if names(reply) and day not in listed]:
        raise ReadError("day_unlisted", f"{project.project} has counts of {', '.join(unlisted)}, which are not listed")


def _read_days(project: Project, keys: ProjectKeys, scores: Mapping[str, float]) -> Reading[None]:
    if not scores:
        return
    replies = yield request(keys.days, [("HGETALL", keys.stored(day)) for day in scores])
    days: dict[str, Day] = {}
    for (day, score), reply in zip(scores.items(), replies, strict=True):
        pairs = _pairs(reply)
        if not pairs:
            # The day may have expired since it was listed; if it is listed still, its counts were lost.
            again = yield request(keys.days, [_listed(keys)])
            if day in _scores(again[0]):
                raise ReadError("day_lost", f"{project.project} {day} is listed and has no counts")
        elif day == ATTEMPTS:
            project.attempts = {_attempt(field): decimal(count) for field, count in pairs.items()}
            days[day] = Day(score)
        else:
            days[day] = _day(score, pairs)
    yield from _read_labels(project, keys, days.values())
    yield from _read_oldest(project, keys, days)
    for name, day_read in days.items():
        project.put(name, day_read)


def _day(score: float, pairs: Mapping[bytes, bytes]) -> Day:
    deliveries: dict[tuple[int, int], int] = {}
    events: dict[int, int] = {}
    for name, count in pairs.items():
        group, _, kind = name.partition(b":")
        if kind == b"e":
            events[decimal(group)] = decimal(count)
        else:
            rank = decimal(kind)
            if not 1 <= rank <= len(STATUSES):
                raise ReadError("bad_value", f"{name[:40]!r} counts deliveries in no status")
            deliveries[decimal(group), rank] = decimal(count)
    return Day(score, deliveries, events)


def _read_labels(project: Project, keys: ProjectKeys, days: Iterable[Day]) -> Reading[None]:
    """Learns the labels of groups that were not met before."""
    of_deliveries = {group for day in days for group, _ in day.deliveries if group and group not in project.groups}
    of_events = {group for day in days for group in day.events if group and group not in project.sources}
    wanted = of_deliveries | of_events
    if not wanted:
        return
    ordered = sorted(wanted)
    replies = yield request(keys.groups, [("HMGET", keys.groups, *(f"#{group}" for group in ordered))])
    for group, value in zip(ordered, array(replies[0]), strict=True):
        told = text(value)
        if told is None:
            raise ReadError("group_lost", f"group {group} of {project.project} has no labels")
        if told.startswith(b"event"):
            project.sources[group] = label_of(told.removeprefix(b"event"))
        else:
            project.groups[group] = Labels(*(label_of(part) for part in told.split(b"\0")))
    if not (of_deliveries <= project.groups.keys() and of_events <= project.sources.keys()):
        raise ReadError("group_lost", f"groups of {project.project} have the labels of another kind")


def _read_oldest(project: Project, keys: ProjectKeys, days: Mapping[str, Day]) -> Reading[None]:
    """The oldest delivery in processing of each group that has one, without looking at the others."""
    wanted = [
        (name, group)
        for name, day in days.items()
        for (group, status), count in day.deliveries.items()
        if status == PROCESSING and count > 0
    ]
    if not wanted:
        return
    replies = yield request(keys.days, [_first(keys, *each) for each in wanted])
    found: dict[str, dict[int, int]] = {name: {} for name in days}
    missing = [each for each, reply in zip(wanted, replies, strict=True) if not _take_oldest(found, each, reply)]
    if missing:
        yield from _look_for_indexed(project, keys, missing, found)
    for name, oldest in found.items():
        days[name].oldest_us = oldest


def _look_for_indexed(
    project: Project, keys: ProjectKeys, missing: list[tuple[str, int]], found: dict[str, dict[int, int]]
) -> Reading[None]:
    """Looks once more for groups that had deliveries in processing when they were counted, and then none in the index.

    Raises ReadError where that is so still while the day did not change: an age without it would read as nothing.
    """
    counts = [("HMGET", keys.stored(name), f"{group}:{PROCESSING}") for name, group in missing]
    firsts = [_first(keys, *each) for each in missing]
    before, *replies, after = yield request(keys.days, [_listed(keys), *counts, *firsts, _listed(keys)])
    scores, later = _scores(before), _scores(after)
    for (name, group), counted, first in zip(missing, replies[: len(missing)], replies[len(missing) :], strict=True):
        if _take_oldest(found, (name, group), first) or scores.get(name) != later.get(name):
            continue
        if decimal(text(array(counted)[0]) or b"0") > 0:
            raise ReadError("day_lost", f"{project.project} {name} counts deliveries that its index lacks")


def _first(keys: ProjectKeys, name: str, group: int) -> tuple[bytes | str | int, ...]:
    low, high = struct.pack(">I", group), struct.pack(">I", group + 1)
    return ("ZRANGEBYLEX", keys.processing(name), b"[" + low, b"(" + high, "LIMIT", 0, 1)


def _take_oldest(found: dict[str, dict[int, int]], place: tuple[str, int], reply: Reply) -> bool:
    name, group = place
    for member in names(reply):
        found[name][group] = int.from_bytes(member[4:11], "big")
    return group in found[name]


def _pairs(reply: Reply) -> dict[bytes, bytes]:
    flat = names(reply)
    return dict(zip(flat[::2], flat[1::2], strict=True))


def _attempt(field: bytes) -> tuple[str, str, str]:
    endpoint, status, code = field.decode("utf-8", "replace").split("\0")
    return endpoint, status, code
