"""What the pipeline tells whoever serves it: one scrape's answer, readiness, and the state of its lanes."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Exposition:
    """One scrape's answer; `content_type` is the format that was negotiated."""

    content_type: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether Redis could be read just now, and one line that says so or why not."""

    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class LaneState:
    """How a lane is doing. None before the first collection; times in Unix seconds."""

    name: str
    up: bool | None
    duration_seconds: float | None
    last_success: float | None
    age_seconds: float | None
    errors: Mapping[str, int]
    last_error: str | None


@dataclass(frozen=True, slots=True)
class LaneStatus:
    """One lane as a page shows it.

    `source` carries no password. `up` is None before the first read, `age_seconds` before the first success.
    """

    name: str
    source: str
    up: bool | None
    age_seconds: float | None
    last_error: str | None


@dataclass(frozen=True, slots=True)
class Status:
    """The process as a page shows it.

    `started_at` is in Unix seconds; `push` says where OTLP goes, or "off".
    """

    version: str
    started_at: float
    lanes: tuple[LaneStatus, ...]
    push: str
