"""Which source each domain metric is exported from now: its own, or its fallback while that one fails."""

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from otel_queue.config.settings import Sources
from otel_queue.samples import Family

ACTIVE: Final = "otel_queue_source_active"
_SOURCE: Final = "self"
# A fallback is read from this share of the patience on, so that it is there when it is needed, and a short fault of
# the source costs nothing.
_HEAD_START: Final = 0.5


@dataclass(frozen=True, slots=True)
class Supply:
    """What a source has now. It is `well` if its last collection succeeded and left nothing out.

    `folded` is how many series of a metric went into `other`.
    """

    families: Mapping[str, Family]
    well: bool
    folded: Mapping[str, int] = field(default_factory=dict)

    def serves(self, metric: str) -> bool:
        """Whether the metric can be had, whole and fresh."""
        return self.well and metric in self.families


_NOTHING: Final = Supply({}, well=False)


@dataclass(slots=True)
class _Choice:
    """Where one metric comes from. Times are monotonic seconds."""

    sources: Sources
    falls_back: bool = False
    failing_since: float | None = None
    well_since: float | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """The families to export, by metric, and the source that each comes from."""

    families: Mapping[str, Family] = field(default_factory=dict)
    sources: Mapping[str, str] = field(default_factory=dict)


class Selection:
    """Chooses per metric, with patience.

    It goes to the fallback when the source has failed for `fallback_after_seconds`, and back when that has been well
    for `return_after_seconds`.
    While a source fails and its fallback is not taken yet, its last families stay as long as its lane keeps them.
    When the fallback fails too, a source that is well is taken back at once. A metric without a fallback is absent.
    Safe for threads.
    """

    def __init__(
        self,
        sources: Mapping[str, Sources],
        *,
        fallback_after_seconds: float,
        return_after_seconds: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._choices = {metric: _Choice(each) for metric, each in sources.items() if each.source is not None}
        self._fallback_after = fallback_after_seconds
        self._return_after = return_after_seconds
        self._now = now
        self._lock = threading.Lock()

    def wanted(self) -> set[str]:
        """The sources that have to be read; a fallback only while the source fails, so that it costs nothing before."""
        soon = self._now() - _HEAD_START * self._fallback_after
        found: set[str | None] = set()
        for choice in self._choices.values():
            source, fallback, shadow = choice.sources
            found |= {source, shadow}
            if choice.falls_back or (choice.failing_since is not None and choice.failing_since <= soon):
                found.add(fallback)
        return {name for name in found if name is not None}

    def choose(self, supplies: Mapping[str, Supply]) -> Chosen:
        """The families to export, given what each source has now."""
        now = self._now()
        families: dict[str, Family] = {}
        sources: dict[str, str] = {}
        for metric, choice in self._choices.items():
            with self._lock:
                self._settle(metric, choice, supplies, now)
                name = choice.sources.fallback if choice.falls_back else choice.sources.source
            family = supplies.get(name or "", _NOTHING).families.get(metric)
            if name is not None and family is not None:
                families[metric], sources[metric] = family, name
        return Chosen(families, sources)

    def active(self, chosen: Chosen) -> Family:
        """otel_queue_source_active: 1 for the source that a metric was chosen from, 0 for the other one it has."""
        samples = [
            ((metric, name, role), float(chosen.sources.get(metric) == name))
            for metric, choice in self._choices.items()
            for name, role in ((choice.sources.source, "source"), (choice.sources.fallback, "fallback"))
            if name is not None
        ]
        return Family(ACTIVE, samples, time.time(), _SOURCE)

    def _settle(self, metric: str, choice: _Choice, supplies: Mapping[str, Supply], now: float) -> None:
        source, fallback, _ = choice.sources
        is_well = supplies.get(source or "", _NOTHING).serves(metric)
        helps = fallback is not None and supplies.get(fallback, _NOTHING).serves(metric)
        if is_well:
            choice.failing_since = None
            choice.well_since = now if choice.well_since is None else choice.well_since
        else:
            choice.well_since = None
            choice.failing_since = now if choice.failing_since is None else choice.failing_since
        if choice.failing_since is not None and helps and now - choice.failing_since >= self._fallback_after:
            choice.falls_back = True
        elif choice.well_since is not None and (not helps or now - choice.well_since >= self._return_after):
            choice.falls_back = False
