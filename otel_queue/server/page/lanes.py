"""The page's lanes and their errors."""

from typing import Final

from otel_queue.server.page.html import Html, element, together
from otel_queue.server.page.table import Column, badge, table
from otel_queue.server.page.words import count, moment, seconds
from otel_queue.status import LaneState, Status

_LANES: Final = (
    Column("lane", kind="name"),
    Column("state"),
    Column("source"),
    Column("age", "", "number"),
    Column("last took", "", "number"),
    Column("last error"),
)
_ERRORS: Final = (
    Column("lane", kind="name"),
    Column("reason"),
    Column("in words"),
    Column("last"),
    Column("first"),
    Column("count", "errors", "number"),
)


def lanes_section(lanes: tuple[LaneState, ...]) -> Html:
    """Every lane with its source and its age."""
    rows = table("lanes", _LANES, map(_lane_cells, lanes)) if lanes else element("p", "No lane is configured.")
    return element("section", element("h2", "Lanes"), rows, id="lanes")


def errors_section(status: Status, now: float) -> Html:
    """The last distinct errors of all lanes, the newest first."""
    rows = [
        (
            error.lane,
            element("code", error.reason),
            element("span", error.text, class_="words"),
            moment(error.last, now),
            moment(error.first, now),
            count(error.count),
        )
        for error in status.errors
    ]
    content = table("recent errors", _ERRORS, rows) if rows else element("p", "None since this process started.")
    return element("section", element("h2", "Recent errors"), content, id="errors")


def _lane_cells(lane: LaneState) -> tuple[str, ...]:
    age = "never read" if lane.age_seconds is None else _age(lane)
    last_error = lane.last_error or "none"
    if lane.up and lane.last_error:
        last_error = f"over: {lane.last_error}"
    return lane.name, _state(lane), lane.source, age, seconds(lane.duration_seconds), last_error


def _state(lane: LaneState) -> Html:
    if lane.up is None:
        return badge("not read yet", "quiet")
    return badge("up", "good") if lane.up else badge("down", "bad")


def _age(lane: LaneState) -> Html:
    age = seconds(lane.age_seconds)
    if lane.stale:
        return together(age, " ", badge("stale", "bad"))
    return together(age, " ", badge("ageing", "warn")) if lane.up is False else age
