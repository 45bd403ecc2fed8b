"""From lifecycle records to script calls: one call per project, kind of record and day."""

from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import Final, NamedTuple

from otel_queue import labels
from otel_queue.ledger.identity import identify
from otel_queue.ledger.keys import Keys, ProjectKeys
from otel_queue.ledger.scripts import Word
from otel_queue.lifecycle import (
    STATUSES,
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    DeliveryRead,
    EventCreated,
    Label,
    ProjectDescribed,
    Record,
    StatusSet,
)

# The kind of each record of a delivery. A creation time that it tells is of the kind that stands two above.
_KIND: Final = {StatusSet: 0, DeliveryCreated: 1, DeliveryRead: 2}
_RANK: Final = {status: rank for rank, status in enumerate(STATUSES, start=1)}
# How many arguments a record is.
_WORDS: Final = {"record_deliveries": 10, "record_events": 4, "record_attempts": 3}
# Redis unpacks the arguments of a call onto Lua's stack, and a long call holds everybody else up.
MOST_RECORDS: Final = 256
_LABELS_KEPT: Final = 16_384


class Call(NamedTuple):
    """One script call. `records` is how many records it carries; the first of `keys` names its slot.

    The first of `arguments` is empty: the script goes by the contract that the project has.
    """

    script: str
    project: str
    keys: tuple[bytes, ...]
    arguments: tuple[Word, ...]
    records: int


def calls(records: Iterable[Record], keys: Keys, *, under_day: str | None = None) -> Iterator[Call]:
    """The calls that record all of `records`; each call is atomic, and repeating it changes nothing.

    `under_day` is where they are kept, if not under the day that each id tells: for rows whose own day is gone.
    Raises ValueError for a record with an unknown status.
    """
    grouped: dict[tuple[str, str, str], list[Word]] = {}
    for record in records:
        match record:
            case DeliveryCreated() | StatusSet() | DeliveryRead():
                name, (day, words) = "record_deliveries", _delivery(record)
            case AttemptMade():
                name, (day, words) = "record_attempts", _attempt(record)
            case EventCreated():
                name, (day, words) = "record_events", _event(record)
            case ProjectDescribed():
                yield _described(record, keys.project(record.project))
                continue
            case DayExpired():
                yield _expired(record, keys.project(record.project))
                continue
        group = (name, record.project, under_day or day)
        arguments = grouped.get(group)
        if arguments is None:
            arguments = grouped[group] = []
        arguments += words
        if len(arguments) >= MOST_RECORDS * len(words):
            yield _recording(group, grouped.pop(group), keys)
    for group, arguments in grouped.items():
        yield _recording(group, arguments, keys)


def _recording(group: tuple[str, str, str], arguments: list[Word], keys: Keys) -> Call:
    name, project, day = group
    of = keys.project(project)
    own: tuple[bytes, ...]
    if name == "record_deliveries":
        own = (of.days, of.deliveries(day))
    elif name == "record_events":
        own = (of.days, of.events(day))
    else:
        own = (of.attempts, of.days, of.attempt_ids(day))
    return Call(name, project, (of.meta, of.groups, *own), ("", day, *arguments), len(arguments) // _WORDS[name])


def _delivery(record: DeliveryCreated | StatusSet | DeliveryRead) -> tuple[str, tuple[Word, ...]]:
    day, stored, crc, created = identify(record.delivery_id)
    kind = _KIND[type(record)]
    if record.created_us is not None:
        created, origin = record.created_us, 2 + kind
    else:
        created, origin = created or record.time_us, 1
    return day, (
        stored,
        crc,
        _RANK.get(record.status) or _RANK[labels.status(record.status)],
        record.time_us,
        kind,
        created,
        origin,
        "" if record.endpoint is UNTOLD else _plain(record.endpoint),
        "" if record.event_type is UNTOLD else _plain(record.event_type),
        "" if record.source is UNTOLD else _source(record.source),
    )


def _event(record: EventCreated) -> tuple[str, tuple[Word, ...]]:
    day, stored, crc, _ = identify(record.event_id)
    return day, (stored, crc, record.time_us, "" if record.source is UNTOLD else _source(record.source))


def _attempt(record: AttemptMade) -> tuple[str, tuple[Word, ...]]:
    day, stored, crc, _ = identify(record.attempt_id)
    endpoint = labels.UNKNOWN if record.endpoint is UNTOLD else _plain(record.endpoint)[1:]
    return day, (stored, crc, f"{endpoint}\0{labels.outcome(record.succeeded)}\0{_code(record.http_status)}")


def delivery_group(endpoint: Label, event_type: Label, source: Label) -> str:
    """The labels of a group of deliveries, as the ledger numbers them."""
    words = (
        "" if endpoint is UNTOLD else _plain(endpoint),
        "" if event_type is UNTOLD else _plain(event_type),
        "" if source is UNTOLD else _source(source),
    )
    return "\0".join(words)


def event_group(source: Label) -> str:
    """The labels of a group of events, as the ledger numbers them."""
    return "event" if source is UNTOLD else f"event{_source(source)}"


def rank_of(status: str) -> int:
    """What a status is counted under; raises ValueError for one that is not known."""
    return _RANK[labels.status(status)]


# The same few labels come with every record: cleaning them anew would be half of the work.


@lru_cache(_LABELS_KEPT)
def _plain(label: str | None) -> str:
    return f"={labels.plain(label)}"


@lru_cache(_LABELS_KEPT)
def _source(label: str | None) -> str:
    return f"={labels.source(label)}"


@lru_cache(_LABELS_KEPT)
def _code(http_status: str | int | None) -> str:
    return labels.http_status_code(http_status)


def _described(record: ProjectDescribed, of: ProjectKeys) -> Call:
    names = (record.project_name, record.organisation_id, record.organisation_name)
    arguments: tuple[Word, ...] = ("", "", record.time_us, *(labels.clean(name) for name in names))
    return Call("describe_project", record.project, (of.meta,), arguments, 1)


def _expired(record: DayExpired, of: ProjectKeys) -> Call:
    return Call("expire_day", record.project, (of.meta, of.days), ("", record.day), 1)
