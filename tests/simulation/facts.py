"""What a call tells the ledger, and what a record has to become: worked out from docs/ledger-protocol.md alone."""

import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple

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
from tests.ledger.oracle import CROCKFORD, RANKS, day_of, three_digits, ulid_milliseconds

_WORDS: Final = {"record_deliveries": 10, "record_events": 4, "record_attempts": 3}


class Fact(NamedTuple):
    """One record in one call: the script, the project, the day, and the words."""

    script: str
    project: str
    day: str
    words: tuple[bytes, ...]


def facts_of_call(script: str, project: str, arguments: tuple[bytes, ...]) -> list[Fact]:
    """The records that a call tells; nothing for a call that records none."""
    if script not in (*_WORDS, "describe_project", "expire_day"):
        return []
    day, words = arguments[1].decode(), arguments[2:]
    size = _WORDS.get(script, len(words) or 1)
    return [Fact(script, project, day, words[at : at + size]) for at in range(0, max(len(words), 1), size)]


def fact_of(record: Record) -> Fact:
    """A record as the protocol wants it; its labels are clean already."""
    match record:
        case EventCreated():
            day, stored = _identity(record.event_id)
            words = [stored, _hash(stored), record.time_us, _label(record.source, "http")]
            return _fact("record_events", record, day, words)
        case DeliveryCreated() | StatusSet() | DeliveryRead():
            day, stored = _identity(record.delivery_id)
            record_kind = {StatusSet: 0, DeliveryCreated: 1, DeliveryRead: 2}[type(record)]
            if record.created_us is not None:
                created, kind = record.created_us, {0: 2, 1: 3, 2: 4}[record_kind]
            else:
                told = ulid_milliseconds(record.delivery_id)
                created, kind = record.time_us if told is None else told * 1000, 1
            rank = RANKS.index(record.status.lower()) + 1
            labels = [_label(record.endpoint), _label(record.event_type), _label(record.source, "http")]
            words = [stored, _hash(stored), rank, record.time_us, record_kind, created, kind, *labels]
            return _fact("record_deliveries", record, day, words)
        case AttemptMade():
            day, stored = _identity(record.attempt_id)
            endpoint = "unknown" if record.endpoint is UNTOLD else record.endpoint or ""
            outcome = "success" if record.succeeded else "failure"
            field = f"{endpoint}\0{outcome}\0{three_digits(record.http_status)}"
            return _fact("record_attempts", record, day, [stored, _hash(stored), field])
        case ProjectDescribed():
            names = [record.project_name, record.organisation_id, record.organisation_name]
            return _fact("describe_project", record, "", [record.time_us, *names])
        case DayExpired():
            return _fact("expire_day", record, record.day, [])


def _fact(script: str, record: Record, day: str, words: Sequence[object]) -> Fact:
    return Fact(script, record.project, day, tuple(w if isinstance(w, bytes) else str(w).encode() for w in words))


def _identity(text: str) -> tuple[str, bytes]:
    day = day_of(text)
    if day is None:
        return "undated", text.encode()
    number = 0
    for letter in text:
        number = number * 32 + CROCKFORD.index(letter)
    return day, number.to_bytes(16, "big")


def _hash(stored: bytes) -> int:
    return zlib.crc32(stored)


def _label(label: object, null: str = "") -> str:
    return "" if label is UNTOLD else f"={label or null}"
