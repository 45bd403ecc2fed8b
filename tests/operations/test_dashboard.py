"""The dashboard, by itself and against the catalog; test_demo_on_dashboard has what it shows of a running exporter."""

import re
from collections import Counter

from otel_queue.catalog import CATALOG
from tests.operations.dashboards import FILE, dashboard, generator, panels, queries
from tests.operations.promql import groupings, selectors
from tests.operations.rule_files import TARGET_LABELS, recorded, unknown

# What no panel shows, and why.
NOT_SHOWN = {
    "convoy_project_info": "joins names to other series",
    **{name: "goes away" for name, row in CATALOG.items() if row.stability == "compatibility"},
}
RECORDED = {rule.name for rule in recorded()}


def test_the_file_is_what_its_generator_writes() -> None:
    assert FILE.read_text(encoding="utf-8") == generator().text()


def test_ids_titles_and_places_are_used_once() -> None:
    every = dashboard()["panels"]
    assert max(Counter(panel["id"] for panel in every).values()) == 1
    assert max(Counter(panel["title"] for panel in every).values()) == 1
    taken = Counter(
        (column, line)
        for panel in every
        for column in range(panel["gridPos"]["x"], panel["gridPos"]["x"] + panel["gridPos"]["w"])
        for line in range(panel["gridPos"]["y"], panel["gridPos"]["y"] + panel["gridPos"]["h"])
    )
    assert max(taken.values()) == 1
    assert max(column for column, _ in taken) < 24
    for panel in panels():
        assert len({target["refId"] for target in panel["targets"]}) == len(panel["targets"])


def test_grafana_can_import_it_for_any_prometheus() -> None:
    found = dashboard()
    assert found["schemaVersion"] >= 39
    assert re.fullmatch(r"[\w-]{1,40}", found["uid"])
    assert [variable["name"] for variable in found["templating"]["list"]] == ["datasource", "job", "queue", "project"]
    asked = [*panels(), *(target for panel in panels() for target in panel["targets"])]
    asked += [variable for variable in found["templating"]["list"] if variable["type"] == "query"]
    assert {each["datasource"]["uid"] for each in asked} == {"${datasource}"}


def test_every_panel_has_a_unit_and_every_query_a_legend() -> None:
    assert [panel["title"] for panel in panels() if not panel["fieldConfig"]["defaults"]["unit"]] == []
    assert [query for query in queries() if not query.legend] == []


def test_seconds_bytes_and_shares_have_their_unit() -> None:
    for panel in panels():
        unit = panel["fieldConfig"]["defaults"]["unit"]
        read = {each.metric for target in panel["targets"] for each in selectors(target["expr"])}
        if any(re.search(r"_seconds(_bucket|:max)?$|_drain_seconds|latency_bucket", name) for name in read):
            assert unit == "s", panel["title"]
        if any(name.endswith("_bytes") for name in read):
            assert unit == "bytes", panel["title"]
        if any(re.search(r":\w*ratio", name) for name in read):
            assert unit == "percentunit", panel["title"]
        if any("rate(" in target["expr"] and "quantile" not in target["expr"] for target in panel["targets"]):
            assert unit == "ops", panel["title"]


def test_every_query_reads_what_exists_by_labels_that_it_has() -> None:
    keys = {key for row in CATALOG.values() for key in row.keys} | TARGET_LABELS | {"le"}
    for query in queries():
        assert [fault for each in selectors(query.expression) if (fault := unknown(each))] == [], query.panel
        assert groupings(query.expression) <= keys, query.panel
        assert set(re.findall(r"\{\{(\w+)\}\}", query.legend)) <= keys, query.panel


def test_every_query_follows_the_variables_that_its_metrics_have_a_label_for() -> None:
    for query in queries():
        for each in selectors(query.expression):
            row = CATALOG.get(re.sub("_bucket$", "", each.metric))
            assert row is not None or each.metric in RECORDED
            keys = set(row.keys) if row else set(each.metric.partition(":")[0].split("_"))
            wanted = ({"queue", "project"} & keys) | ({"job"} if row else set())
            assert wanted <= each.labels, query.panel


def test_the_sum_of_what_all_replicas_export_alike_is_over_the_largest_of_each() -> None:
    own = {name for name, row in CATALOG.items() if row.owner == "worker"} | {
        name for name in CATALOG if name.startswith("otel_queue_")
    }
    for query in queries():
        shared = {each.metric for each in selectors(query.expression)} - own - RECORDED
        shared = {name for name in shared if not name.endswith("_bucket")}
        if "sum" in query.expression and shared:
            assert "max without (instance, pod, job)" in query.expression, query.panel


def test_every_metric_of_the_catalog_is_on_the_dashboard_but_for_those_with_a_reason() -> None:
    behind = {rule.name: {each.metric for each in selectors(rule.expression)} for rule in recorded()}
    shown: set[str] = set()
    wanted = {each.metric for query in queries() for each in selectors(query.expression)}
    while wanted:
        shown |= wanted
        wanted = {name for each in wanted for name in behind.get(each, set())} - shown
    shown = {re.sub("_bucket$", "", name) for name in shown}
    assert set(CATALOG) - shown == set(NOT_SHOWN)
