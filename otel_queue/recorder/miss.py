"""What a recorder refuses: input that would make a wrong record is counted as a miss, by reason."""

import math
from datetime import datetime
from typing import Final

from otel_queue import labels
from otel_queue.lifecycle import UNTOLD, Label

MOST_ID_CHARACTERS: Final = 512
# Earlier and later times are mistakes of unit (seconds, nanoseconds), or a clock that was never set.
FIRST_TIME_US: Final = 946_684_800_000_000  # 2000-01-01
LAST_TIME_US: Final = 4_102_444_800_000_000  # 2100-01-01


class Miss(Exception):  # noqa: N818 # it is caught inside the recorder, and counted
    """The input cannot be recorded; `reason` is one word from a bounded set."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


def identifier(reason: str, told: object) -> str:
    """A project's or row's id: text of some length that is valid Unicode."""
    if type(told) is str and 0 < len(told) <= MOST_ID_CHARACTERS:
        if told.isascii():
            return told
        try:
            told.encode()
        except UnicodeEncodeError:
            pass
        else:
            return told
    raise Miss(reason, f"{_shown(told)} is no id of 1 to {MOST_ID_CHARACTERS} characters")


def label(told: object) -> Label:
    """A label's value; what is wrong inside the text is cleaned later."""
    if type(told) is str or told is None or told is UNTOLD:
        return told
    raise Miss("bad_label", f"{_shown(told)} is neither text nor None nor UNTOLD")


def status(told: object) -> str:
    """A delivery status of the known set."""
    try:
        if isinstance(told, str):
            return labels.status(told)
    except ValueError:
        pass
    raise Miss("bad_status", f"{_shown(told)} is no delivery status")


def time_us(told: object) -> int:
    """Unix microseconds of this century."""
    if type(told) is int and FIRST_TIME_US <= told < LAST_TIME_US:
        return told
    raise Miss("bad_time", f"{_shown(told)} is no time in Unix microseconds")


def seconds(told: object) -> float:
    """A duration, which may be negative."""
    if isinstance(told, (int, float)) and math.isfinite(told):
        return told
    raise Miss("bad_duration", f"{_shown(told)} is no duration in seconds")


def day(told: object) -> str:
    """A UTC day as YYYYMMDD."""
    try:
        if isinstance(told, str) and len(told) == 8 and told.isascii():
            datetime.strptime(told, "%Y%m%d")
            return told
    except ValueError:
        pass
    raise Miss("bad_day", f"{_shown(told)} is no day in the form YYYYMMDD")


def text(told: object) -> str:
    """A name, which may be empty; what is wrong inside the text is cleaned later, as a label's."""
    if isinstance(told, str):
        return told
    raise Miss("bad_label", f"{_shown(told)} is no text")


def _shown(value: object) -> str:
    try:
        shown = repr(value)
    except Exception:  # a number of thousands of digits, or an object of somebody's
        shown = "that cannot be shown"
    return f"{type(value).__name__} {labels.clean(shown)[:80]}"
