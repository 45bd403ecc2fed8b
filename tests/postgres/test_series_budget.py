"""Equal data give equal series, whichever source they come through, whatever the budget and the labels."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from otel_queue.catalog import CATALOG
from otel_queue.ledger.families import ledger_families
from otel_queue.ledger.project import Day, Labels, Project
from otel_queue.ledger.reader import LedgerSnapshot
from otel_queue.lifecycle import STATUSES
from otel_queue.postgres.aggregations import read_families
from otel_queue.postgres.database import Reading, Row
from otel_queue.samples import Family
from otel_queue.series_budget import Exported, SeriesBudget
from tests.postgres.exporters import Exporter, no_database
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENTS, Gateway, by_name

NOW = 1_000_000
PROCESSING = "processing"
INFO = "convoy_project_info"

Group = tuple[str, str, str]  # endpoint, event type, source


@dataclass(frozen=True)
class Told:
    """One project's counts: deliveries by group and status with an age in whole seconds, events, attempts."""

    deliveries: Mapping[tuple[Group, str], tuple[int, int]]
    events: Mapping[str, int]
    attempts: Mapping[tuple[str, str, str], int]


ENDPOINTS = st.sampled_from(["", "E1", "E10", "E2", "e1", "é", "other", "unknown"])
SOURCES = st.sampled_from(["http", "S1", "S2", "unknown"])
COUNTS = st.integers(1, 1000)
GROUPS = st.tuples(ENDPOINTS, st.sampled_from(["", "t1", "t2"]), SOURCES)
OUTCOMES = st.sampled_from([("success", "200"), ("failure", "500"), ("failure", "none")])
PROJECTS = st.dictionaries(
    st.sampled_from(["P1", "P2", "other"]),
    st.builds(
        Told,
        st.dictionaries(
            st.tuples(GROUPS, st.sampled_from(STATUSES)), st.tuples(COUNTS, st.integers(0, 9999)), min_size=1
        ),
        st.dictionaries(SOURCES, COUNTS),
        st.dictionaries(st.tuples(ENDPOINTS, OUTCOMES).map(lambda told: (told[0], *told[1])), COUNTS),
    ),
)


def names(project: str) -> tuple[str, str, str]:
    return f"name of {project}", f"O{project}", f"organisation of {project}"


def through_the_ledger(told: Mapping[str, Told], *, lean: bool, most: int) -> Exported:
    projects = []
    for name, data in told.items():
        numbers = {
            group: number for number, group in enumerate(dict.fromkeys(group for group, _ in data.deliveries), 1)
        }
        project = Project(name, names=names(name))
        project.groups = {number: Labels(*group) for group, number in numbers.items()}
        project.sources = dict(enumerate(data.events, 1))
        ages = {numbers[group]: age for (group, status), (_, age) in data.deliveries.items() if status == PROCESSING}
        deliveries = {
            (numbers[group], STATUSES.index(status) + 1): count
            for (group, status), (count, _) in data.deliveries.items()
        }
        events = dict(enumerate(data.events.values(), 1))
        oldest_us = {number: (NOW - age) * 1_000_000 for number, age in ages.items()}
        project.put("20260101", Day(0.0, deliveries, events, oldest_us))
        project.attempts = data.attempts
        projects.append(project)
    snapshot = LedgerSnapshot(float(NOW), 1, tuple(projects), {}, 0.0, 1)
    return ledger_families(snapshot, lean=lean, budget=SeriesBudget(most))


class Rows:
    """Answers as a database with these data would."""

    lag_seconds = 0.0
    is_alive = True

    def __init__(self, told: Mapping[str, Told]) -> None:
        self._told = told

    def rows(self, name: str) -> list[Row]:
        found: dict[str, list[Row]] = {
            "corrected/event_queue": [
                (project, source, count)
                for project, data in self._told.items()
                for source, count in data.events.items()
            ],
            "corrected/event_delivery_queue": [
                (project, names(project)[0], endpoint, status.capitalize(), event_type, source, *names(project)[1:],
                 count, float(age) if status == PROCESSING else None)
                for project, data in self._told.items()
                for ((endpoint, event_type, source), status), (count, age) in data.deliveries.items()
            ],
            "corrected/attempts": [
                (project, endpoint, status == "success", None if code == "none" else f"{code} so", count)
                for project, data in self._told.items()
                for (endpoint, status, code), count in data.attempts.items()
            ],
        }  # fmt: skip
        return found[name]


def through_the_database(told: Mapping[str, Told], *, lean: bool, most: int) -> Exported:
    found = read_families(cast(Reading, Rows(told)), "corrected", float(NOW), lambda: None)
    assert not found.failures
    return SeriesBudget(most).fit(found.families, lean=lean)


def series(exported: Exported) -> dict[str, dict[tuple[str, ...], float]]:
    for family in exported.families:
        assert len(dict(family.samples)) == len(family.samples), family.name
        assert all(len(values) == len(CATALOG[family.name].keys) for values, _ in family.samples)
    return {family.name: dict(family.samples) for family in exported.families}


@given(PROJECTS, st.booleans(), st.integers(1, 12))
def test_ledger_and_database_give_the_same_series(told: Mapping[str, Told], lean: bool, most: int) -> None:
    of_ledger = through_the_ledger(told, lean=lean, most=most)
    of_database = through_the_database(told, lean=lean, most=most)
    assert series(of_database) == series(of_ledger)
    assert dict(of_database.folded) == dict(of_ledger.folded)


@given(PROJECTS, st.integers(1, 12))
def test_folding_loses_no_count_and_keeps_the_budget(told: Mapping[str, Told], most: int) -> None:
    folded = series(through_the_database(told, lean=False, most=most))
    whole = series(through_the_database(told, lean=False, most=1_000_000))
    for name in (DELIVERIES, ATTEMPTS):
        assert sum(folded[name].values()) == sum(whole[name].values())
        place = CATALOG[name].keys.index("endpoint")
        for project in told:
            own = [values for values in folded[name] if values[0] == project and values[place] != "other"]
            assert len(own) <= most


def test_a_family_that_is_missing_has_no_project_info_and_costs_no_other() -> None:
    events = Family(EVENTS, [(("P", "http", "success"), 1.0)], 5.0, "postgres")
    assert SeriesBudget(1).fit([events], lean=True) == Exported([events])


# As it is served --------------------------------------------------------------------------------------------------


@pytest.fixture
def filled(gateway: Gateway) -> Gateway:
    gateway.event("e1", source="S")
    for number in range(1, 4):
        gateway.delivery(f"d{number}", "e1", "Processing", endpoint=f"E{number}", event_type=f"t{number}")
        gateway.attempt("200 OK", True, endpoint=f"E{number}")
    return gateway


def test_exporters_with_other_budgets_and_labels_share_a_generation(filled: Gateway, exporter: Exporter) -> None:
    full = by_name(exporter().collect().families)
    few = exporter(no_database(), budget=SeriesBudget(1)).collect()
    lean = by_name(exporter(no_database(), lean=True).collect().families)
    assert {values[2] for values, _ in full[DELIVERIES].samples} == {"E1", "E2", "E3"}
    found = by_name(few.families)
    assert {values[2] for values, _ in found[DELIVERIES].samples} == {"E1", "other"}
    assert {values[1] for values, _ in found[ATTEMPTS].samples} == {"E1", "other"}
    assert few.folded == {DELIVERIES: 2, DELIVERY_BACKLOG: 2, ATTEMPTS: 2}
    assert INFO not in full
    assert dict(lean[INFO].samples) == {("P", "Proj", "O", "Org"): 1.0}
    assert lean[INFO].time == lean[DELIVERIES].time
    assert {values for values, _ in lean[DELIVERIES].samples} == {
        ("P", "", f"E{number}", PROCESSING, "", "S", "", "") for number in range(1, 4)
    }


def test_families_are_fitted_once_per_generation(filled: Gateway, exporter: Exporter, client: Any) -> None:
    source = exporter(lean=True)
    first, second = source.collect(), source.collect()
    assert [id(family) for family in first.families] == [id(family) for family in second.families]
