"""A reconciliation in few words."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from otel_queue.config import RedisConfig
from otel_queue.ledger.counts import CountsStore
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.tracked import Tracked
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.redis_client import Answers, PlacedLink, Request, connect
from otel_queue.seeding.pace import Pace
from otel_queue.seeding.progress import Progress
from otel_queue.seeding.reconcile import LedgerParts, Reconcile
from otel_queue.seeding.report import Report
from tests.postgres.gateway import Gateway
from tests.seeding.seeds import rows_of

Wrap = Callable[[PlacedLink], PlacedLink]


@contextmanager
def reconciles(
    gateway: Gateway,
    url: str,
    *,
    project: str | None = None,
    is_dry: bool = False,
    wrap: Wrap = lambda link: link,
    **arguments: Any,
) -> Iterator[Reconcile]:
    """`wrap` is put around each of its links to Redis."""
    with ExitStack() as stack:

        def link() -> PlacedLink:
            opened = connect(RedisConfig(url=url))
            stack.callback(opened.close)
            return wrap(opened)

        parts = LedgerParts(
            LedgerStore(link()),
            Tracked(link()),
            Upkeep(link()),
            CountsStore(link()),
        )
        rows = rows_of(gateway, project=project, **arguments)
        pace = Pace(0.0, threading.Event(), patience_seconds=())
        yield Reconcile(rows, parts, project=project, is_dry=is_dry, pace=pace, progress=Progress(0))


def reconcile(gateway: Gateway, url: str, **arguments: Any) -> Report:
    with reconciles(gateway, url, **arguments) as opened:
        return opened.run()


def repaired(report: Report) -> dict[str, int]:
    """What was found, by kind, in all projects."""
    found: dict[str, int] = {}
    for (_, what), count in report.found.items():
        found[what] = found.get(what, 0) + count
    return found


class Interrupted:
    """A link on which something else happens once, just before the first call of a script that has this text."""

    def __init__(self, link: PlacedLink, text: bytes, meanwhile: Callable[[], object]) -> None:
        self._link = link
        self._text = text
        self._meanwhile: list[Callable[[], object]] = [meanwhile]

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        if self._meanwhile and any(self._text in item.packed for item in requests):
            self._meanwhile.pop()()
        return self._link.exchange(requests, deadline)

    def place(self, key: bytes, /) -> str:
        return self._link.place(key)

    def close(self) -> None:
        self._link.close()
