"""A status with something in every section, for the page's tests."""

from otel_queue.status import (
    DomainOverview,
    EndpointOverview,
    LaneState,
    MetricSource,
    Point,
    ProjectOverview,
    QueueOverview,
    RecentError,
    ShadowVerdict,
    Status,
)

NOW = 1_700_000_000.0


def full_status(text: str = "x", now: float = NOW, *, pending: float = 7.0) -> Status:
    """`text` stands wherever the page shows something that comes from outside; charts end at `now`."""
    history = tuple(
        Point(now - 15.0 * step, float(step % 9), 2.0 + step % 5, None if step % 7 == 0 else step % 3)
        for step in range(50, -1, -1)
    )
    error = RecentError(text, text, text, now - 90.0, now - 4.0, 3)
    endpoints = (EndpointOverview(text, text, text, 75.0, 40.0, 9.0, 2.0),)
    return Status(
        text,
        now - 3600.0,
        (
            LaneState("queue", True, 0.004, now - 1.0, 1.0, {}, None, source=text),
            LaneState(text, False, 1.0, now - 400.0, 400.0, {text: 3}, text, stale=True, source=text, recent=(error,)),
            LaneState("memory", None, None, None, None, {}, None),
        ),
        text,
        (
            QueueOverview(text, 12.0, pending, 1.0, 2.0, 3.0, 4.0, 5.5, 1.25, 0.01, True, 0.0, 2.0, history),
            QueueOverview("unreadable"),
        ),
        (QueueOverview(f"{text}2", 1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.1, 0.0, 0.0, False, 1.0, 0.0),),
        3,
        DomainOverview(
            (MetricSource(text, text, f"{text}!", f"{text}!"), MetricSource("absent_metric", "ledger", None, None)),
            (ProjectOverview(text, text, 100.0, 10.0, 3.0, 75.0), ProjectOverview(text, "", 1.0, 0.0, 0.0, None)),
            12,
            endpoints,
            30,
            endpoints,
            30,
            420.0,
        ),
        (ShadowVerdict(text, False, 3.5, {text: 2.0}, 9.0), ShadowVerdict("other_seconds", None, None, {}, None)),
        (error,),
    )
