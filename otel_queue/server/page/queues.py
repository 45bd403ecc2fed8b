"""The page's queues: numbers by state, and the last minutes as charts."""

from typing import Final

from otel_queue.server.page.html import Html, element, together
from otel_queue.server.page.sparkline import sparkline
from otel_queue.server.page.table import Column, badge, table
from otel_queue.server.page.words import count, rate, seconds
from otel_queue.status import LaneState, QueueOverview, Status

_NUMBERS: Final = (
    Column("pending", "tasks", "number"),
    Column("active", "tasks", "number"),
    Column("scheduled", "tasks", "number"),
    Column("retry", "tasks", "number"),
    Column("archived", "tasks", "number"),
    Column("size", "tasks", "number"),
    Column("latency", "", "number"),
    Column("done", "attempts", "number"),
    Column("failed", "attempts", "number"),
)
_PLAIN: Final = (Column("queue", kind="name"), *_NUMBERS)
_CHARTED: Final = (*_PLAIN, Column("pending", "last 15 min", "chart"), Column("attempts", "last 15 min", "chart"))


def queues_section(status: Status, now: float) -> Html:
    """All queues: those with a chart, then the others, folded up."""
    lane = next((lane for lane in status.lanes if lane.name == "queue"), None)
    parts: list[str] = [element("h2", f"Queues ({status.queue_count})" if status.queues else "Queues")]
    if status.queues and lane is not None and lane.stale:
        parts.append(
            element("p", "The queues cannot be read now; numbers are unknown, charts show what was.", class_="note")
        )
    if status.queues:
        charted = ((*_cells(queue), _pending_chart(queue, now), _attempts_chart(queue, now)) for queue in status.queues)
        parts.append(table("queues", _CHARTED, charted))
    else:
        parts.append(element("p", _why_none(lane)))
    if status.other_queues:
        others = table("other queues", _PLAIN, (_cells(queue) for queue in status.other_queues))
        summary = element("summary", f"{_queues(len(status.other_queues))} more, with less to do")
        parts.append(element("details", summary, others, id="other-queues"))
    left_out = status.queue_count - len(status.queues) - len(status.other_queues)
    if left_out > 0:
        everything = element("a", "/metrics", href="/metrics")
        parts.append(element("p", f"Not shown: {_queues(left_out)}; ", everything, " has all."))
    parts.append(
        element(
            "p",
            "Size counts all seven states. Latency is how long the next pending task has waited. "
            "Done and failed are attempts over the last minute; in the charts the failed ones are drawn in red.",
            class_="note",
        )
    )
    return element("section", *parts, id="queues")


def has_no_server(queue: QueueOverview) -> bool:
    """Whether tasks wait and no live server serves them."""
    return queue.servers == 0 and bool(queue.pending)


def _queues(number: int) -> str:
    return f"{number} queue{'s' * (number != 1)}"


def _why_none(lane: LaneState | None) -> str:
    if lane is None or lane.up is None:
        return "No queue has been read yet."
    return "There is no queue in this Redis." if lane.up and not lane.stale else "No queue is known."


def _cells(queue: QueueOverview) -> tuple[str, ...]:
    return (
        _name(queue),
        *map(count, (queue.pending, queue.active, queue.scheduled, queue.retry, queue.archived, queue.size)),
        seconds(queue.latency_seconds),
        rate(queue.processed_per_second),
        rate(queue.failed_per_second),
    )


def _name(queue: QueueOverview) -> Html:
    flags = []
    if queue.paused:
        flags.append(badge("paused", "warn"))
    if has_no_server(queue):
        flags.append(badge("no server", "bad"))
    if queue.lease_expired:
        flags.append(badge(f"{count(queue.lease_expired)} lease{'s' * (queue.lease_expired != 1)} expired", "bad"))
    return together(element("span", queue.queue, class_="name"), *flags)


def _pending_chart(queue: QueueOverview, now: float) -> Html:
    series = [(point.time, point.pending) for point in queue.history]
    return sparkline(f"{queue.queue}: pending tasks", "tasks", series, now)


def _attempts_chart(queue: QueueOverview, now: float) -> Html:
    done = [(point.time, point.processed_per_second) for point in queue.history]
    failed = [(point.time, point.failed_per_second) for point in queue.history]
    return sparkline(f"{queue.queue}: attempts per second, failed ones in red", "/s", done, now, second=failed)
