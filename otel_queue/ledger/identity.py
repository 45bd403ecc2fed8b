"""What follows from an id alone: its day, its stored form, and where among a day's nodes it is kept."""

import re
import zlib
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final, NamedTuple

from otel_queue.ledger.keys import ATTEMPTS, SETTLED
from otel_queue.ulid import CHANCE_BITS, number_of, ulid_of

UNDATED: Final = "undated"

_ULID: Final = re.compile(r"[0-7][0-9A-HJKMNP-TV-Z]{25}")
# A ULID of other years is some other id that looks like one.
_FIRST_MS: Final = 1_451_606_400_000  # 2016-01-01
_LAST_MS: Final = 4_102_444_800_000  # 2100-01-01

_DAY_MS: Final = 86_400_000
_MARCH_2000: Final = 11_017


class Identity(NamedTuple):
    """`stored` is 16 bytes for a dated ULID, else the text; `created_us` is None unless the id tells a time."""

    day: str
    stored: bytes
    hash: int
    created_us: int | None


def identify(text: str) -> Identity:
    """The identity of an event, delivery or attempt id. Ids are compared exactly, case included."""
    if _ULID.fullmatch(text):
        number = number_of(text)
        milliseconds = number >> CHANCE_BITS
        if _FIRST_MS <= milliseconds < _LAST_MS:
            stored = number.to_bytes(16, "big")
            return Identity(_day(milliseconds // _DAY_MS), stored, zlib.crc32(stored), milliseconds * 1000)
    stored = text.encode("utf-8", "surrogateescape")
    return Identity(UNDATED, stored, zlib.crc32(stored), None)


def text_of(day: str, stored: bytes) -> str:
    """The id whose stored form is kept under a day."""
    if day == UNDATED:
        return stored.decode("utf-8", "surrogateescape")
    return ulid_of(int.from_bytes(stored, "big"))


@lru_cache(maxsize=2048)
def _day(number: int) -> str:
    return day_of(number * _DAY_MS * 1000)


def day_of(time_us: int) -> str:
    """The UTC day of a time, YYYYMMDD."""
    return datetime.fromtimestamp(time_us / 1e6, tz=UTC).strftime("%Y%m%d")


def days_up_to(now: float, days: int) -> list[str]:
    """All that may be listed among a project's days: as many days up to tomorrow, and what stands for days."""
    today = int(now * 1e3) // _DAY_MS
    return [*(_day(today - back) for back in range(-1, days)), SETTLED, ATTEMPTS]


def number_of_day(day: str) -> int:
    """The days from 1 March 2000 to a day, as the scripts number days."""
    return end_of(day) // 86_400 - 1 - _MARCH_2000


def end_of(day: str) -> int:
    """The Unix second at which a day ends."""
    return int(datetime.strptime(day, "%Y%m%d").replace(tzinfo=UTC).timestamp()) + 86_400


def end_of_day_number(number: int) -> int:
    """The Unix second at which the day of that number ends."""
    return (number + _MARCH_2000 + 1) * 86_400
