"""What of the domain lane is exported when it is too much: one rule, so that every source gives the same series."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from otel_queue import labels
from otel_queue.catalog import ATTEMPTS, CATALOG, DELIVERIES, DELIVERY_BACKLOG, PROJECT_INFO
from otel_queue.samples import Family, LabelValues

Samples = dict[LabelValues, float]

NO_BUDGET: Final = 1 << 60
"""Room for every series."""

# Where the endpoint stands among the label values; other metrics have none, and no budget.
_ENDPOINT: Final = {name: CATALOG[name].keys.index("endpoint") for name in (DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS)}
# What lean labels leave empty of a delivery's. Names change, and event types are many.
_LEAN: Final = ("project_name", "event_type", "organisation_id", "organisation_name")
_EMPTIED: Final = frozenset(CATALOG[DELIVERIES].keys.index(key) for key in _LEAN)
_NAMES: Final = tuple(CATALOG[DELIVERIES].keys.index(key) for key in CATALOG[PROJECT_INFO].keys)


@dataclass(frozen=True, slots=True)
class Exported:
    """Families, and what was done to fit them: `folded` series per metric went into `other`."""

    families: list[Family]
    folded: Mapping[str, int]


def fit(families: Iterable[Family], *, lean: bool, most_series: int) -> Exported:
    """The families of a source that knows all labels, as they are exported.

    `lean` leaves names, organisation and event type empty and offers convoy_project_info instead, for every project
    with a delivery. A project has `most_series` series in a metric, and those that `fold_endpoints` adds.
    """
    folded: Counter[str] = Counter()
    fitted: list[Family] = []
    for family in families:
        if lean and family.name == DELIVERIES:
            fitted.append(replace(family, name=PROJECT_INFO, samples=_project_info(family)))
            family = replace(family, samples=list(_without_names(family).items()))
        fitted.append(_within_budget(family, most_series, folded))
    return Exported(fitted, folded)


def fold_endpoints(metric: str, found: Samples, most: int, folded: Counter[str]) -> Samples:
    """One project's samples of a metric, with the endpoints that sort first.

    The series of endpoints beyond `most` series add up under endpoint `other`, whatever the order in which they came,
    and are counted in `folded`.
    """
    endpoint = _ENDPOINT.get(metric)
    if endpoint is None or len(found) <= most:
        return found
    combine = CATALOG[metric].combine
    per_endpoint = Counter(labelled[endpoint] for labelled in found)
    kept: set[str] = set()
    room = most
    for value in sorted(per_endpoint):
        room -= per_endpoint[value]
        if room < 0:
            break
        kept.add(value)
    result: Samples = {}
    for labelled, number in found.items():
        label = labelled
        if labelled[endpoint] not in kept:
            folded[metric] += 1
            label = (*labelled[:endpoint], labels.OTHER, *labelled[endpoint + 1 :])
        result[label] = combine(result[label], number) if label in result else number
    return result


def _within_budget(family: Family, most: int, folded: Counter[str]) -> Family:
    if family.name not in _ENDPOINT or len(family.samples) <= most:
        return family
    by_project: defaultdict[str, Samples] = defaultdict(dict)
    for labelled, number in family.samples:
        by_project[labelled[0]][labelled] = number
    kept = [fold_endpoints(family.name, found, most, folded) for found in by_project.values()]
    return replace(family, samples=[sample for found in kept for sample in found.items()])


def _without_names(family: Family) -> Samples:
    found: Samples = {}
    for labelled, number in family.samples:
        label = tuple("" if place in _EMPTIED else value for place, value in enumerate(labelled))
        found[label] = found.get(label, 0.0) + number
    return found


def _project_info(family: Family) -> list[tuple[LabelValues, float]]:
    projects = {tuple(values[place] for place in _NAMES) for values, _ in family.samples}
    return [(names, 1.0) for names in sorted(projects)]
