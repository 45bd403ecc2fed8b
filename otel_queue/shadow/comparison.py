"""One comparison of one metric: what the ledger said around a moment, against what the database said of it.

The ledger is read before the database's state is fixed, at once after, and again when what was on its way has
arrived. So a series is an interval there, and a point in the database; they differ by the distance of the two.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NamedTuple

from otel_queue import labels
from otel_queue.catalog import CATALOG
from otel_queue.samples import Family, LabelValues
from otel_queue.shadow.tolerance import Tolerance

Side = Literal["ledger", "postgres"]
SIDES: Final[tuple[Side, ...]] = ("ledger", "postgres")

SOURCE_OF_GONE_EVENT: Final = "source_of_gone_event"
RETENTION: Final = "retention"
# Stands for the sources of a group that were added up.
ANY_SOURCE: Final = "*"
# Two servers' clocks are never read at the same moment: ages that are closer than this are the same.
_SAME_SECONDS: Final = 0.1

_Values = dict[LabelValues, float]


class Difference(NamedTuple):
    """A series that differs: its interval in the ledger, its point in the database, the signed distance.

    `missing` is the side that does not have it at all, "" for none; `postgres` is 0 there.
    """

    labels: LabelValues
    low: float
    high: float
    postgres: float
    amount: float
    missing: Side | Literal[""]
    beyond: bool


@dataclass(frozen=True, slots=True)
class Comparison:
    """One metric compared. `known` counts the series whose difference has a name, which is no drift."""

    metric: str
    differences: Sequence[Difference]
    known: Mapping[str, int] = field(default_factory=dict)

    @property
    def drift(self) -> float:
        """The largest difference, tolerance or not."""
        return max((abs(found.amount) for found in self.differences), default=0.0)

    @property
    def missing(self) -> dict[str, int]:
        """Series that each side lacks beyond tolerance: small ones in flight come and go between two looks."""
        return {side: sum(found.beyond and found.missing == side for found in self.differences) for side in SIDES}


def compare(
    tolerance: Tolerance, readings: Sequence[Family], database: Family, time: float, *, widened: float = 0.0
) -> Comparison:
    """A gauge's comparison. `time` is the database's moment by the clock of the readings.

    `widened` is by what share of their width the intervals of counts grow at both ends.
    """
    metric = database.name
    if CATALOG[metric].unit == "s":
        looks = [_ages_at(time, family) for family in readings]
        found = _differences(tolerance, looks, dict(database.samples), same=_SAME_SECONDS)
    else:
        looks = [_nonzero(family) for family in readings]
        found = _differences(tolerance, looks, _nonzero(database), widened=widened)
    differences, named = _without_gone_events(tolerance, found, looks, dict(database.samples))
    return Comparison(metric, differences, {SOURCE_OF_GONE_EVENT: named} if named else {})


def _nonzero(family: Family) -> _Values:
    """A count of 0 and no series are the same: the ledger drops a group's last delivery with its count."""
    return {values: count for values, count in family.samples if count}


def _ages_at(time: float, family: Family) -> _Values:
    """The ages that the deliveries found by a reading had at `time`; 0 stays 0: nothing was in processing."""
    later = time - family.time
    return {values: max(age + later, 0.0) if age else 0.0 for values, age in family.samples}


def _differences(
    tolerance: Tolerance, looks: Sequence[_Values], database: _Values, *, same: float = 0.0, widened: float = 0.0
) -> list[Difference]:
    found: list[Difference] = []
    for series in _candidates(looks, database):
        told = [look.get(series, 0.0) for look in looks]
        low, high = min(told), max(told)
        if widened:
            low, high = low - widened * (high - low), high + widened * (high - low)
        point = database.get(series, 0.0)
        amount = distance(low, high, point, same)
        missing: Side | Literal[""] = ""
        if series not in database:
            missing = "postgres" if all(series in look for look in looks) else ""
        elif not any(series in look for look in looks):
            missing = "ledger"
        if amount or missing:
            found.append(difference(tolerance, series, low, high, point, amount, missing))
    return found


def _candidates(looks: Sequence[_Values], database: _Values) -> Iterator[LabelValues]:
    """Series that may differ: most of them do not, and hashing their labels is what a comparison costs."""
    if any(look == database for look in looks):
        return  # every point is in its interval
    lookups = [look.get for look in looks]
    for series, point in database.items():
        for told in lookups:
            if told(series) != point:
                yield series
                break
    others: set[LabelValues] = set()
    for look in looks:
        others |= look.keys() - database.keys()
    yield from others


def distance(low: float, high: float, point: float, same: float = 0.0) -> float:
    """How far the point is above the interval, negative below it; 0 inside, and where that is `same` at most."""
    amount = point - high if point > high else min(point - low, 0.0)
    return amount if abs(amount) > same else 0.0


def difference(
    tolerance: Tolerance,
    series: LabelValues,
    low: float,
    high: float,
    point: float,
    amount: float,
    missing: Side | Literal[""],
) -> Difference:
    """A difference, judged. A count that one side lacks is off by its value; an age that is 0 says nothing of it."""
    is_age = CATALOG[tolerance.metric].unit == "s"
    beyond = bool(is_age and missing) or not tolerance.rule(series).allows(amount, point)
    return Difference(series, low, high, point, amount, missing, beyond)


def _without_gone_events(
    tolerance: Tolerance, found: list[Difference], looks: Sequence[_Values], database: _Values
) -> tuple[list[Difference], int]:
    """The differences without those of deliveries whose event's row is gone, and how many series those are.

    The database calls their source unknown, the ledger still knows it. So the database has less under the known
    sources and as much more under `unknown`; what does not add up stays, as the difference of them all.
    """
    keys = CATALOG[tolerance.metric].keys
    if "source" not in keys or not found:
        return found, 0
    at = keys.index("source")
    receivers = {_group(item.labels, at): item for item in found if _gained(item) and item.labels[at] == labels.UNKNOWN}
    if not receivers:
        return found, 0
    movers: dict[LabelValues, list[Difference]] = defaultdict(list)
    kept: list[Difference] = []
    for item in found:
        group = _group(item.labels, at)
        if group in receivers and item.labels[at] != labels.UNKNOWN and _lost(item):
            movers[group].append(item)
        elif item is not receivers.get(group):
            kept.append(item)
    oldest = _oldest(looks, at, receivers.keys() - movers.keys()) if CATALOG[tolerance.metric].unit == "s" else {}
    named = 0
    for group, receiver in receivers.items():
        if movers[group]:
            members = [receiver, *movers[group]]
            named += len(members)
            kept += _rest(tolerance, group, at, [member.labels for member in members], looks, database)
        elif receiver.missing and receiver.postgres <= oldest.get(group, -1.0):
            named += 1  # the source's own age is that of another delivery, of the same age or older
        else:
            kept.append(receiver)
    return kept, named


def _gained(item: Difference) -> bool:
    return item.amount > 0 or item.missing == "ledger"


def _lost(item: Difference) -> bool:
    return item.amount < 0 or item.missing == "postgres"


def _group(series: LabelValues, at: int) -> LabelValues:
    return (*series[:at], *series[at + 1 :])


def _oldest(looks: Sequence[_Values], at: int, groups: Iterable[LabelValues]) -> _Values:
    """The largest age that the ledger has in each of the groups under any known source."""
    wanted = set(groups)
    found: _Values = {}
    for look in looks if wanted else ():
        for series, age in look.items():
            group = _group(series, at)
            if group in wanted and series[at] != labels.UNKNOWN:
                found[group] = max(found.get(group, 0.0), age + _SAME_SECONDS)
    return found


def _rest(
    tolerance: Tolerance,
    group: LabelValues,
    at: int,
    members: Sequence[LabelValues],
    looks: Sequence[_Values],
    database: _Values,
) -> Iterator[Difference]:
    """What is left when the members are taken together: counts added up, of ages the largest."""
    ages = CATALOG[tolerance.metric].unit == "s"
    *told, point = (
        max(values) if ages else sum(values)
        for values in ([side.get(member, 0.0) for member in members] for side in (*looks, database))
    )
    low, high = min(told), max(told)
    amount = distance(low, high, point, _SAME_SECONDS if ages else 0.0)
    if amount:
        series = (*group[:at], ANY_SOURCE, *group[at:])
        yield difference(tolerance, series, low, high, point, amount, "")


class Increases:
    """Compares a counter by what it grew since the comparison before: the two sides began at different times."""

    def __init__(self) -> None:
        self._before: tuple[_Values, _Values, _Values] | None = None

    def compare(self, tolerance: Tolerance, readings: Sequence[Family], database: Family) -> Comparison | None:
        """The comparison with the last one's numbers; None if there is none.

        A series that the database has less of was cut by retention, and begins anew: that is no drift.
        """
        looks = [_nonzero(family) for family in readings]
        lows: _Values = {}
        highs: _Values = {}
        for series in {series: None for look in looks for series in look}:
            told = [look.get(series, 0.0) for look in looks]
            lows[series], highs[series] = min(told), max(told)
        before, self._before = self._before, (lows, highs, _nonzero(database))
        return None if before is None else _compare_increases(tolerance, before, self._before)


def _compare_increases(
    tolerance: Tolerance, before: tuple[_Values, _Values, _Values], now: tuple[_Values, _Values, _Values]
) -> Comparison:
    (lows, highs, points), (low_now, high_now, point_now) = before, now
    known: Counter[str] = Counter()
    found: list[Difference] = []
    for series in {**points, **point_now, **high_now, **highs}:
        growth = point_now.get(series, 0.0) - points.get(series, 0.0)
        if growth < 0:
            known[RETENTION] += 1
            continue
        low = low_now.get(series, 0.0) - highs.get(series, 0.0)
        high = high_now.get(series, 0.0) - lows.get(series, 0.0)
        amount = distance(low, high, growth)
        if not amount:
            continue
        missing: Side | Literal[""] = ""
        if series not in high_now:
            missing = "ledger"
        elif series not in point_now:
            missing = "postgres"
        found.append(difference(tolerance, series, low, high, growth, amount, missing))
    return Comparison(tolerance.metric, found, dict(known))
