"""The headers in which a task carries its labels and the time at which it was enqueued."""

import time
from collections.abc import Mapping
from typing import Final

from otel_queue.lifecycle import UNTOLD, Label

PROJECT: Final = "oq-project"
SOURCE: Final = "oq-source"
ENDPOINT: Final = "oq-endpoint"
EVENT_TYPE: Final = "oq-event-type"
ENQUEUED_AT: Final = "oq-enqueued-at"


def label_in(headers: Mapping[str, str], name: str) -> Label:
    """The label that a header tells: None for an empty one."""
    return (headers[name] or None) if name in headers else UNTOLD


def now_us() -> int:
    """Unix microseconds, as `ENQUEUED_AT` has them."""
    return time.time_ns() // 1_000
