"""What an operator has to know first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from operator import attrgetter
from typing import Final

from otel_queue.server.page.domain import is_from_fallback
from otel_queue.server.page.html import Html, element, together
from otel_queue.server.page.queues import has_no_server
from otel_queue.server.page.table import badge
from otel_queue.server.page.words import count, seconds
from otel_queue.status import QueueOverview, Status

_MOST_PROBLEMS: Final = 12
_MOST_NAMED: Final = 5


@dataclass(frozen=True, slots=True)
class _QueueProblem:
    """What can be wrong with a queue: its badge, a sentence, which queues have it, and what to tell of each."""

    kind: str
    word: str
    sentence: str
    has_it: Callable[[QueueOverview], object]
    number: Callable[[QueueOverview], float | None]
    unit: str


_OF_QUEUES: Final = (
    _QueueProblem(
        "bad",
        "no server",
        "tasks are pending and no live server serves them",
        has_it=has_no_server,
        number=attrgetter("pending"),
        unit="pending",
    ),
    _QueueProblem(
        "bad",
        "lease expired",
        "the servers of active tasks are gone or stuck",
        has_it=attrgetter("lease_expired"),
        number=attrgetter("lease_expired"),
        unit="expired",
    ),
    _QueueProblem(
        "warn",
        "paused",
        "nothing is taken from",
        has_it=attrgetter("paused"),
        number=attrgetter("pending"),
        unit="pending",
    ),
)


def attention_section(status: Status) -> Html:
    """What an operator has to know first: everything that is wrong, or that nothing is."""
    problems = list(_problems(status))
    if problems:
        shown = [element("li", badge(word, kind), " ", text) for kind, word, text in problems[:_MOST_PROBLEMS]]
        if len(problems) > _MOST_PROBLEMS:
            shown.append(element("li", f"and {len(problems) - _MOST_PROBLEMS} more; see below"))
        return element("section", element("h2", "Needs attention"), element("ul", *shown), id="attention")
    if any(lane.up is None for lane in status.lanes):
        verdict = together(badge("starting", "quiet"), " Not every lane has been read yet.")
    else:
        verdict = together(badge("all well", "good"), " Every lane is read, and nothing needs attention.")
    return element("section", element("p", verdict), id="attention")


def _problems(status: Status) -> Iterator[tuple[str, str, Html]]:
    """Kind and word of a badge, and a sentence."""
    for lane in status.lanes:
        if lane.up is False:
            yield "bad", "down", together(f"lane {lane.name}: ", lane.last_error or "no reason is known")
        elif lane.stale:
            yield "bad", "stale", together(f"lane {lane.name} was last read ", seconds(lane.age_seconds), " ago")
    yield from _queue_problems(status)
    for source in status.domain.sources if status.domain else ():
        if source.active is None:
            yield "bad", "absent", together(f"{source.metric}: {source.source} does not supply it")
        elif is_from_fallback(source):
            yield "warn", "fallback", together(f"{source.metric} comes from {source.active}, not {source.source}")
    for verdict in status.shadow:
        if verdict.within_tolerance is False:
            yield "bad", "differs", together(f"{verdict.metric} and its shadow are out of tolerance")


def _queue_problems(status: Status) -> Iterator[tuple[str, str, Html]]:
    """One sentence for all queues with the same problem, so that none of it hides what comes after."""
    queues = (*status.queues, *status.other_queues)
    at_least = "at least " if status.queue_count > len(queues) else ""
    for problem in _OF_QUEUES:
        found = [queue for queue in queues if problem.has_it(queue)]
        if found:
            more = len(found) - _MOST_NAMED
            rest = f", and {at_least}{more} more" if more > 0 else ""
            listed = (piece for queue in found[:_MOST_NAMED] for piece in (", ", _named(queue, problem)))
            next(listed)  # no comma before the first
            yield problem.kind, problem.word, together(f"{problem.sentence}: ", *listed, rest)


def _named(queue: QueueOverview, problem: _QueueProblem) -> Html:
    name = element("span", queue.queue, class_="name")
    return together(name, " (", count(problem.number(queue)), f" {problem.unit})")
