"""Streams of lifecycle records that leave nothing out: the same for the same seed and time."""

import random
import uuid
from collections.abc import Callable, Iterator
from typing import Final

from otel_queue.ledger.identity import day_of
from otel_queue.lifecycle import (
    STATUSES,
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    Label,
    ProjectDescribed,
    Record,
    StatusSet,
)

_DAY_US: Final = 86_400_000_000
_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"

# Some are more than a label may be: too long, with control characters, with NUL, which parts a group's labels.
LABELS: Final[tuple[Label, ...]] = (
    UNTOLD, None, "", "http", "E1", "E1", "E2", "a\x00b\x1fc\x7f", "x" * 300, "ü" * 257, "\U0001f600" * 256 + "!",
    "unknown", "=", " ", 'quo"te\n',
)  # fmt: skip
HTTP_STATUSES: Final = (
    200, "200", "200 OK", " 204", "404 Not Found", "503", None, "", "OK", "99", "600", "1000", 2000, 0, "20",
    "2x0", "\t301 Moved", "HTTP/1.1 200 OK", "599x",
)  # fmt: skip
PROJECTS: Final = ("p1", "p1", "p1", "{p}%7B", "projet é")


def ulid(milliseconds: int, chance: random.Random) -> str:
    """A ULID of that time."""
    number = milliseconds << 80 | chance.getrandbits(80)
    return "".join(_ALPHABET[number >> shift & 31] for shift in range(125, -1, -5))


def stream(seed: int, size: int, now_us: int) -> Iterator[Record]:
    """Records up to `now_us`: some repeated, some out of order, some for days that are no longer tracked.

    Most are of one project and day, so that its ids need more than one node.
    """
    chance = random.Random(seed)
    deliveries = [_id(chance, now_us) for _ in range(size // 4)]
    told: list[Record] = []
    make: tuple[Callable[[], Record], ...] = (
        lambda: EventCreated(_project(chance), _id(chance, now_us), _time(chance, now_us), _label(chance)),
        lambda: _delivery_created(chance, deliveries, now_us),
        lambda: _status_set(chance, deliveries, now_us),
        lambda: AttemptMade(
            _project(chance), _id(chance, now_us), now_us, _label(chance), chance.random() < 0.5,
            chance.choice(HTTP_STATUSES),
        ),
        lambda: ProjectDescribed(
            _project(chance), _time(chance, now_us), chance.choice(("New", "Old\x07")), "o1", "n" * 300
        ),
    )  # fmt: skip
    weights = (3, 6, 8, 4, 0.2)
    for number in range(size):
        if number == 0:
            # First, so that no writer's batches decide whether a record came before it or was late.
            yield DayExpired("p1", day_of(now_us - 2 * _DAY_US))
        elif told and chance.random() < 0.2:
            yield chance.choice(told)
        else:
            [maker] = chance.choices(make, weights)
            told.append(maker())
            yield told[-1]


def _project(chance: random.Random) -> str:
    return chance.choice(PROJECTS)


def _label(chance: random.Random) -> Label:
    return chance.choice(LABELS)


def _time(chance: random.Random, now_us: int) -> int:
    # Few different ones, so that records of one delivery often have the same.
    return now_us - chance.randrange(5) * 1_000_000


def _id(chance: random.Random, now_us: int) -> str:
    days_ago = chance.choice((0, 0, 0, 0, 0, 0, 1, 2, 9, 40))
    real = ulid((now_us - days_ago * _DAY_US) // 1000, chance)
    strange = (
        real.lower(),
        "Z" * 26,
        ulid(4_102_444_799_999 + chance.randrange(2), chance),  # before and after the turn of the century
        ulid(1_000_000_000_000, chance),  # of 2001
        "8" + real[1:],
        real[:-1] + "U",
        real + "\n",
        str(uuid.UUID(int=chance.getrandbits(128), version=4)),
        f"livraison é {chance.randrange(100)}",
        "\x00binary\x00",
        "é" * 512,
    )
    return real if chance.random() < 0.8 else chance.choice(strange)


def _created_us(chance: random.Random, now_us: int) -> int | None:
    return None if chance.random() < 0.5 else now_us - chance.randrange(3) * 60_000_000


def _status(chance: random.Random) -> str:
    status = chance.choice(STATUSES)
    return status if chance.random() < 0.8 else status.title()


def _delivery_created(chance: random.Random, ids: list[str], now_us: int) -> Record:
    return DeliveryCreated(
        _project(chance), chance.choice(ids), _time(chance, now_us), _label(chance), _label(chance),
        _label(chance), _status(chance), _created_us(chance, now_us),
    )  # fmt: skip


def _status_set(chance: random.Random, ids: list[str], now_us: int) -> Record:
    return StatusSet(
        _project(chance), chance.choice(ids), _status(chance), _time(chance, now_us), _label(chance),
        _label(chance), _label(chance), _created_us(chance, now_us),
    )  # fmt: skip
