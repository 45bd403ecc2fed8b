"""What changes on a dashboard when the gateway's own numbers give way to corrected ones: every difference by its rule.

Both come out of one transaction, so nothing moves in between: what no rule explains is `other`.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from otel_queue import labels
from otel_queue.catalog import ATTEMPTS, CATALOG, DELIVERIES, EVENTS
from otel_queue.samples import Family, LabelValues

# A known group with nothing in processing has no legacy series, and is 0.
ZERO_FOR_KNOWN_GROUP: Final = "zero_for_known_group"
# The legacy backlogs end after a thousand groups.
CUT_AT_1000: Final = "cut_at_1000"
# The event's row is gone: the legacy source is `http`, the corrected one `unknown`.
SOURCE_OF_GONE_EVENT: Final = "source_of_gone_event"
# An event that was replayed counts once per row, and so does every delivery of it.
REPLAYED_EVENT: Final = "replayed_event"
# A source that is called `http` and none at all are two groups with one label, of which one is shown.
TWO_SOURCES_ONE_LABEL: Final = "two_sources_one_label"
# "" and NULL are the same, and were not.
BLANK_LABEL: Final = "blank_label"
# A delivery that was created ahead of the database's clock.
NEGATIVE_AGE: Final = "negative_age"
# Control characters and more than 256 characters are not exported any more.
CLEANED_LABEL: Final = "cleaned_label"
# The gateway declared the metric and never exported it.
NEVER_EXPORTED: Final = "never_exported"
# The legacy family was read from a snapshot that is older than the corrected one.
OLDER_READING: Final = "older_reading"
OTHER: Final = "other"

_CUT: Final = 1000
# The same interval, taken apart by the database and put together here.
_SAME_SECONDS: Final = 1e-3

_Values = Mapping[LabelValues, float]


@dataclass(frozen=True, slots=True)
class _Sides:
    """One metric's series on both sides, and of the corrected deliveries which groups have a success."""

    legacy: _Values
    corrected: _Values
    source: int
    succeeded: frozenset[LabelValues]

    def old(self, series: LabelValues, source: str) -> float | None:
        """The legacy value of the series with another source."""
        return self.legacy.get(self._with(series, source))

    def new(self, series: LabelValues, source: str) -> float | None:
        """The corrected value of the series with another source."""
        return self.corrected.get(self._with(series, source))

    def _with(self, series: LabelValues, source: str) -> LabelValues:
        return (*series[: self.source], source, *series[self.source + 1 :])


def name_differences(legacy: Iterable[Family], corrected: Iterable[Family]) -> dict[str, dict[str, int]]:
    """Metric -> rule -> series that differ by it; a series that differs in two ways counts under the first.

    A metric that either side could not read is left out.
    """
    before = {family.name: family for family in legacy}
    after = {family.name: family for family in corrected}
    deliveries = after.get(DELIVERIES)
    found: dict[str, dict[str, int]] = {}
    for metric, family in after.items():
        if metric == ATTEMPTS:
            counted = Counter({NEVER_EXPORTED: len(family.samples)})
        elif metric not in before:
            continue
        else:
            counted = _count(before[metric], family, deliveries)
        found[metric] = dict(+counted)
    return found


def _count(legacy: Family, corrected: Family, deliveries: Family | None) -> Counter[str]:
    counted: Counter[str] = Counter()
    old: dict[LabelValues, float] = {}
    combine = CATALOG[legacy.name].combine
    for series, value in legacy.samples:
        cleaned = tuple(map(labels.clean, series))
        counted[CLEANED_LABEL] += cleaned != series
        old[cleaned] = combine(old[cleaned], value) if cleaned in old else value
    ages = CATALOG[legacy.name].unit == "s"
    keys = CATALOG[legacy.name].keys
    sides = _Sides(
        old, dict(corrected.samples), keys.index("source"), _succeeded(deliveries, keys) if ages else frozenset()
    )
    rule = _rule_of_an_age if ages else _RULES[legacy.name]
    same = _SAME_SECONDS if ages else 0.0
    for series in {**old, **sides.corrected}:
        was, now = old.get(series), sides.corrected.get(series)
        if was is not None and now is not None and abs(was - now) <= same:
            continue
        name = rule(sides, series, was, now)
        counted[OLDER_READING if name == OTHER and legacy.time < corrected.time else name] += 1
    return counted


def _succeeded(deliveries: Family | None, keys: Iterable[str]) -> frozenset[LabelValues]:
    if deliveries is None:
        return frozenset()
    columns = CATALOG[DELIVERIES].keys
    kept = [columns.index(key) for key in keys]
    status = columns.index("status")
    return frozenset(
        tuple(values[column] for column in kept) for values, _ in deliveries.samples if values[status] == "success"
    )


def _rule_of_events(sides: _Sides, series: LabelValues, was: float | None, now: float | None) -> str:
    if _is_blank(sides, series):
        return BLANK_LABEL
    if (was or 0.0) > (now or 0.0):
        return REPLAYED_EVENT if now else OTHER
    return TWO_SOURCES_ONE_LABEL if was and series[sides.source] == labels.NO_SOURCE else OTHER


def _rule_of_deliveries(sides: _Sides, series: LabelValues, was: float | None, now: float | None) -> str:
    if _is_blank(sides, series):
        return BLANK_LABEL
    gone = sides.new(series, labels.UNKNOWN) or 0.0
    source = series[sides.source]
    if gone and sides.old(series, labels.UNKNOWN) is None:
        known = sides.new(series, labels.NO_SOURCE) or 0.0
        shown = sides.old(series, labels.NO_SOURCE) or 0.0
        if source == labels.UNKNOWN:
            return SOURCE_OF_GONE_EVENT if shown else OTHER
        if source == labels.NO_SOURCE and shown == known + gone:
            return SOURCE_OF_GONE_EVENT
    if (was or 0.0) > (now or 0.0):
        return REPLAYED_EVENT if now else OTHER
    if was and source == labels.NO_SOURCE:
        return TWO_SOURCES_ONE_LABEL
    return BLANK_LABEL if was and not series[_EVENT_TYPE] else OTHER


def _rule_of_an_age(sides: _Sides, series: LabelValues, was: float | None, now: float | None) -> str:
    if _is_blank(sides, series):
        return BLANK_LABEL
    if was is not None and was < 0:
        return NEGATIVE_AGE
    gone, shown = sides.new(series, labels.UNKNOWN), sides.old(series, labels.NO_SOURCE)
    if gone is not None and shown is not None and series[sides.source] in (labels.UNKNOWN, labels.NO_SOURCE):
        oldest = max(gone, sides.new(series, labels.NO_SOURCE) or 0.0)
        if abs(max(shown, 0.0) - oldest) <= _SAME_SECONDS:
            return SOURCE_OF_GONE_EVENT
    is_cut = len(sides.legacy) >= _CUT
    if was is None and now == 0:
        return CUT_AT_1000 if is_cut and series in sides.succeeded else ZERO_FOR_KNOWN_GROUP
    return CUT_AT_1000 if is_cut and not was and now else OTHER


def _is_blank(sides: _Sides, series: LabelValues) -> bool:
    """Whether it is the source "", or the `http` that took it in."""
    blank = sides.old(series, "")
    if blank is None or series[sides.source] not in ("", labels.NO_SOURCE):
        return False
    return (sides.new(series, labels.NO_SOURCE) or 0.0) >= max(blank, 0.0)


_EVENT_TYPE: Final = CATALOG[DELIVERIES].keys.index("event_type")
_RULES: Final[Mapping[str, Callable[[_Sides, LabelValues, float | None, float | None], str]]] = {
    EVENTS: _rule_of_events,
    DELIVERIES: _rule_of_deliveries,
}
