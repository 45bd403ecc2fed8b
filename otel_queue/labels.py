"""Label values as they are kept: known sets, known forms, bounded lengths. The same rules at both doors."""

import re
from typing import Final

from otel_queue.lifecycle import STATUSES, UNTOLD, Label

MOST_CHARACTERS: Final = 256
UNKNOWN: Final = "unknown"
NO_SOURCE: Final = "http"
NO_RESPONSE: Final = "none"
OTHER: Final = "other"

_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_HTTP_STATUS: Final = re.compile(r"\s*([1-5]\d\d)(?!\d)", re.ASCII)


def clean(text: str) -> str:
    """The text without control characters and not longer than `MOST_CHARACTERS`."""
    return _CONTROL.sub("?", text)[:MOST_CHARACTERS]


def source(label: Label) -> str | None:
    """A source; NULL and blank are `http`, as the gateway's own API; None if not told."""
    return None if label is UNTOLD else clean(label or "") or NO_SOURCE


def plain(label: Label) -> str | None:
    """An endpoint or event type; NULL is ""; None if not told."""
    return None if label is UNTOLD else clean(label or "")


def status(text: str) -> str:
    """A delivery status of the known set, whatever its case; raises ValueError for others."""
    lowered = text.lower()
    if lowered not in STATUSES:
        raise ValueError(f"delivery status {clean(text)!r} is not one of {', '.join(STATUSES)}")
    return lowered


def http_status_code(value: str | int | None) -> str:
    """Three digits from `200`, `200 OK` and the like; `none` without a response or for anything else."""
    if isinstance(value, int) and not 100 <= value <= 599:
        return NO_RESPONSE  # some numbers are too long to be written
    found = _HTTP_STATUS.match(str(value)) if value is not None else None
    return found[1] if found else NO_RESPONSE


def outcome(succeeded: bool) -> str:
    """The status label of an attempt."""
    return "success" if succeeded else "failure"
