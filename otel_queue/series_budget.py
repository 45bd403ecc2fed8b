"""Caps the number of series per project and metric: one rule for all sources, so that each gives the same series."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass, field, replace
from typing import Final

from otel_queue import labels
from otel_queue.catalog import ATTEMPTS, CATALOG, DELIVERIES, DELIVERY_BACKLOG, PROJECT_INFO
from otel_queue.samples import Family, LabelValues

Samples = dict[LabelValues, float]

# Where the endpoint stands among the label values; other metrics have none, and no budget.
_ENDPOINT: Final = {name: CATALOG[name].keys.index("endpoint") for name in (DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS)}
# What lean labels leave empty of a delivery's. Names change, and event types are many.
_LEAN: Final = ("project_name", "event_type", "organisation_id", "organisation_name")
_EMPTIED: Final = frozenset(CATALOG[DELIVERIES].keys.index(key) for key in _LEAN)
_NAMES: Final = tuple(CATALOG[DELIVERIES].keys.index(key) for key in CATALOG[PROJECT_INFO].keys)


@dataclass(frozen=True, slots=True)
class Exported:
    """Families, and what was done to fit them.

    By metric: `folded` is how many series went into `other`, `held` how many counters are shown above what was read.
    """

    families: list[Family]
    folded: Counter[str] = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)


@dataclass(slots=True)
class _Places:
    """The endpoints of a project shown in a metric; for a counter also those that folded, and where `other` stood."""

    shown: Set[str] = frozenset()
    folded: Set[str] = frozenset()
    others: Samples = field(default_factory=dict)


_NO_PLACES: Final = _Places()


class SeriesBudget:
    """Caps the series of a project in each metric at `most`, and never takes out an endpoint that it has shown.

    Endpoints that were shown keep their place while there is anything of them, also when they get more series than
    fit. New ones have the room that is left, those first that sort first, after those that another source shows; the
    rest add up under endpoint `other`. An endpoint of a counter that was in `other` stays there, and `other` does not
    fall. One for each exporter. Each source is asked for by one thread at a time.
    """

    def __init__(self, most: int = 20_000) -> None:
        self._most = most
        self._places: dict[str, dict[tuple[str, str], _Places]] = {}
        self._births: dict[str, float] = {}

    def begin(self, source: str, birth: float) -> None:
        """Says since when the source's counters count; another birth than before forgets what it showed."""
        if self._births.get(source) != birth:
            self._births[source] = birth
            self._places.pop(source, None)

    def fit(self, families: Iterable[Family], *, lean: bool) -> Exported:
        """The families of a source that knows all labels, as they are exported.

        `lean` leaves names, organisation and event type empty and offers convoy_project_info instead, for every
        project with a delivery.
        """
        exported = Exported([])
        for family in families:
            if lean and family.name == DELIVERIES:
                exported.families.append(replace(family, name=PROJECT_INFO, samples=_project_info(family)))
                family = replace(family, samples=list(_without_names(family).items()))
            if family.name in _ENDPOINT:
                by_project: defaultdict[str, Samples] = defaultdict(dict)
                for labelled, number in family.samples:
                    by_project[labelled[0]][labelled] = number
                kept = [
                    self.fold(family.source, family.name, project, found, exported)
                    for project, found in by_project.items()
                ]
                family = replace(family, samples=[sample for found in kept for sample in found.items()])
            exported.families.append(family)
        return exported

    def fold(self, source: str, metric: str, project: str, found: Samples, exported: Exported) -> Samples:
        """One project's samples of a metric, within the budget; says in `exported` what was folded and held."""
        endpoint = _ENDPOINT.get(metric)
        if endpoint is None:
            return found
        places = self._places.setdefault(source, {})
        before = places.get((metric, project), _NO_PLACES)
        if len(found) <= self._most and not before.others:
            places[metric, project] = _Places({labelled[endpoint] for labelled in found})
            return found
        per_endpoint = Counter(labelled[endpoint] for labelled in found)
        kept = self._kept(per_endpoint, before, self._shown_elsewhere(source, metric, project))
        result: Samples = {}
        combine = CATALOG[metric].combine
        for labelled, number in found.items():
            label = labelled
            if labelled[endpoint] not in kept:
                exported.folded[metric] += 1
                label = (*labelled[:endpoint], labels.OTHER, *labelled[endpoint + 1 :])
            result[label] = combine(result[label], number) if label in result else number
        after = places[metric, project] = _Places(kept)
        if CATALOG[metric].kind == "counter":
            for label, number in before.others.items():
                if result.get(label, 0.0) < number:
                    result[label] = number
                    exported.held[metric] += 1
            after.folded = per_endpoint.keys() - kept
            after.others = {label: number for label, number in result.items() if label[endpoint] == labels.OTHER}
        return result

    def _kept(self, per_endpoint: Mapping[str, int], before: _Places, elsewhere: Set[str]) -> set[str]:
        kept = {value for value in per_endpoint if value in before.shown}
        room = self._most - sum(per_endpoint[value] for value in kept)
        new = per_endpoint.keys() - kept - before.folded
        for value in sorted(new, key=lambda value: (value not in elsewhere, value)):
            room -= per_endpoint[value]
            if room < 0:
                break
            kept.add(value)
        return kept

    def _shown_elsewhere(self, source: str, metric: str, project: str) -> set[str]:
        others = [places for name, places in list(self._places.items()) if name != source]
        return {value for places in others for value in places.get((metric, project), _NO_PLACES).shown}


def _without_names(family: Family) -> Samples:
    found: Samples = {}
    for labelled, number in family.samples:
        label = tuple("" if place in _EMPTIED else value for place, value in enumerate(labelled))
        found[label] = found.get(label, 0.0) + number
    return found


def _project_info(family: Family) -> list[tuple[LabelValues, float]]:
    projects = {tuple(values[place] for place in _NAMES) for values, _ in family.samples}
    return [(names, 1.0) for names in sorted(projects)]
