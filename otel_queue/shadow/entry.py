"""What is known of one metric after many comparisons: its entry in the journal, and how a comparison changes it."""

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, NamedTuple

from otel_queue.samples import LabelValues
from otel_queue.shadow.comparison import Comparison, Difference, Side
from otel_queue.shadow.tolerance import Tolerance

# A difference of timing alone is gone at the next look.
_STANDS_AFTER: Final = 2
# Written for all to see, and remembered by who compares. Beyond these the ones that have lasted longest stay.
_MOST_WRITTEN: Final = 50
_MOST_REMEMBERED: Final = 10_000


class Standing(NamedTuple):
    """A series that differed in the last comparison, and since when it has without a break and with one sign.

    Values as in Difference. `beyond` of its last comparisons in a row were beyond tolerance; `stands` is whether it
    is more than timing.
    """

    labels: LabelValues
    low: float
    high: float
    postgres: float
    amount: float
    missing: Side | Literal[""]
    since: float
    comparisons: int
    beyond: int
    stands: bool


@dataclass(frozen=True, slots=True)
class Entry:
    """One metric's comparisons so far; times in Unix seconds, by the clock of the ledger's Redis.

    `first` and `last` are None before the first comparison. `within_since` is when the last unbroken run of
    comparisons without a standing difference began, `within` how many they are. `skipped` counts by reason what could
    not be compared. `known` counts series with a named difference, `legacy` those that differ between the gateway's
    own numbers and the corrected ones; both as of the last comparison, as are `drift`, `missing` and `worst`.
    """

    metric: str
    rule: str
    comparisons: int = 0
    first: float | None = None
    last: float | None = None
    within_since: float | None = None
    within: int = 0
    drift: float = 0.0
    missing: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    known: Mapping[str, int] = field(default_factory=dict)
    legacy: Mapping[str, int] = field(default_factory=dict)
    standing: int = 0
    worst: tuple[Standing, ...] = ()

    def skip(self, reason: str) -> "Entry":
        """The entry after a comparison that could not be made."""
        return replace(self, skipped={**self.skipped, reason: self.skipped.get(reason, 0) + 1})


Standings = Mapping[LabelValues, Standing]


def advance(
    entry: Entry | None,
    before: Standings,
    comparison: Comparison,
    legacy: Mapping[str, int],
    tolerance: Tolerance,
    time: float,
) -> tuple[Entry, Standings]:
    """The entry after one more comparison, at `time`, and the series to remember for the next one.

    `before` is what the comparison before returned, or its worst series where another process made it. The first
    comparison under other tolerances begins a new run.
    """
    entry = entry or Entry(comparison.metric, tolerance.digest)
    found = [_lasting(difference, before.get(difference.labels), tolerance, time)
             for difference in comparison.differences]  # fmt: skip
    standing = sum(item.stands for item in found)
    is_new_run = standing > 0 or entry.within_since is None or entry.rule != tolerance.digest
    advanced = replace(
        entry,
        rule=tolerance.digest,
        comparisons=entry.comparisons + 1,
        first=time if entry.first is None else entry.first,
        last=time,
        within_since=None if standing else time if is_new_run else entry.within_since,
        within=0 if standing else 1 if is_new_run else entry.within + 1,
        drift=comparison.drift,
        missing=comparison.missing,
        known=dict(comparison.known),
        legacy=dict(legacy),
        standing=standing,
        worst=tuple(heapq.nlargest(_MOST_WRITTEN, found, key=_weight)),
    )
    if len(found) > _MOST_REMEMBERED:
        found = heapq.nlargest(_MOST_REMEMBERED, found, key=_age)
    return advanced, {item.labels: item for item in found}


def _lasting(now: Difference, before: Standing | None, tolerance: Tolerance, time: float) -> Standing:
    since, comparisons, beyond = time, 1, int(now.beyond)
    if before is not None:
        if _sign(before.amount) == _sign(now.amount):
            since, comparisons = before.since, before.comparisons + 1
        beyond += before.beyond if now.beyond else 0
    patience = tolerance.rule(now.labels).patience
    stands = beyond >= _STANDS_AFTER or (patience is not None and comparisons >= patience)
    return Standing(*now[:6], since, comparisons, beyond, stands)


def _sign(amount: float) -> int:
    return (amount > 0) - (amount < 0)


def _weight(item: Standing) -> tuple[bool, bool, float, int]:
    return item.stands, item.beyond > 0, abs(item.amount), item.comparisons


def _age(item: Standing) -> tuple[int, float]:
    return item.comparisons, abs(item.amount)
