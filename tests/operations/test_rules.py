"""The shipped rules, by Prometheus's own tool and against the catalog."""

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from otel_queue.catalog import CATALOG
from tests.operations.alerts_page import PAGE, alerts_page
from tests.operations.promql import Selector, groupings, selectors
from tests.operations.rule_files import (
    ALERTS,
    RECORDING,
    TARGET_LABELS,
    UNIT_TESTS,
    Rule,
    alerts,
    level,
    recorded,
    unit_tests,
    unknown,
)
from tests.servers.prometheus import find_tool

REPLICA = "instance, pod, job"
# What all replicas export alike because it is one thing that they read; the rest is each process's own.
SHARED = {row.name for row in CATALOG.values() if row.owner in ("inspector", "ledger")} | {
    name
    for name in CATALOG
    if name.startswith("otel_queue_shadow_")
    or name in ("otel_queue_late_records_total", "otel_queue_clamped_records_total")
}
_FIRING = re.compile(r'alertname="(\w+)", alertstate="firing"')


def promtool(*arguments: str | Path) -> None:
    run = subprocess.run([find_tool("promtool"), *arguments], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def by_name(rules: list[Rule]) -> list[Any]:
    return [pytest.param(rule, id=rule.name) for rule in rules]


def test_promtool_accepts_the_rules() -> None:
    promtool("check", "rules", RECORDING, ALERTS)


@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.name)
def test_the_rules_do_what_their_unit_tests_say(file: Path) -> None:
    promtool("test", "rules", file)


@pytest.mark.parametrize("file", UNIT_TESTS, ids=lambda file: file.name)
def test_unit_tests_evaluate_what_is_recorded_before_what_reads_it(file: Path) -> None:
    case = yaml.safe_load(file.read_text(encoding="utf-8"))
    groups = [
        group["name"]
        for rules in case["rule_files"]
        for group in yaml.safe_load((file.parent / rules).read_text(encoding="utf-8"))["groups"]
    ]
    assert case["group_eval_order"] == groups


def test_promtool_would_find_an_alert_that_never_fires(tmp_path: Path) -> None:
    rules = ALERTS.read_text(encoding="utf-8").replace("queue:asynq_queue_paused:max == 1\n", "vector(0) == 1\n", 1)
    (tmp_path / "alerts.rules.yaml").write_text(rules)
    cases = [case for case in unit_tests() if case["name"] == "AsynqQueuePaused fires"]
    asked = {"rule_files": [str(RECORDING), "alerts.rules.yaml"], "evaluation_interval": "1m", "tests": cases}
    (tmp_path / "queues.test.yaml").write_text(yaml.safe_dump(asked))
    with pytest.raises(AssertionError, match="got: nil"):
        promtool("test", "rules", tmp_path / "queues.test.yaml")


def test_every_alert_has_series_with_which_it_fires_and_a_near_miss() -> None:
    fires = {
        name
        for case in unit_tests()
        for check in case.get("promql_expr_test", ())
        if check["exp_samples"]
        for name in _FIRING.findall("\n".join(sample["labels"] for sample in check["exp_samples"]))
    }
    near = {
        check["alertname"]
        for case in unit_tests()
        if f"{check_name(case)} near miss" in case["name"]
        for check in case.get("alert_rule_test", ())
        if not check.get("exp_alerts")
    }
    expected = {rule.name for rule in alerts()}
    assert fires == expected
    assert near == expected


def check_name(case: dict[str, Any]) -> str:
    names = {check["alertname"] for check in case.get("alert_rule_test", ())}
    assert len(names) <= 1, f"{case['name']}: one alert to a near miss"
    return names.pop() if names else "no alert"


def test_every_recorded_series_has_a_unit_test() -> None:
    tested = {
        selector.metric
        for case in unit_tests()
        for check in case.get("promql_expr_test", ())
        for selector in selectors(check["expr"])
    }
    assert {rule.name for rule in recorded()} <= tested


def test_every_series_of_a_unit_test_could_be_exported() -> None:
    for case in unit_tests():
        for series in case["input_series"]:
            [selector] = selectors(series["series"])
            labels = selector.labels - {"cluster"}
            assert unknown(Selector(selector.metric, labels)) is None, case["name"]


@pytest.mark.parametrize("rule", by_name(recorded() + alerts()))
def test_a_rule_reads_only_what_exists_by_labels_that_it_has(rule: Rule) -> None:
    known = {key for row in CATALOG.values() for key in row.keys} | TARGET_LABELS
    assert [fault for each in selectors(rule.expression) if (fault := unknown(each))] == []
    assert groupings(rule.expression) <= known


@pytest.mark.parametrize("rule", by_name(recorded() + alerts()))
def test_a_rule_folds_replicas_and_keeps_every_label_that_it_does_not_know(rule: Rule) -> None:
    assert " by (" not in rule.expression
    raw = {each.metric for each in selectors(rule.expression)} & SHARED
    if raw:
        assert re.search(rf"(max|min) without \({REPLICA}[,)]", rule.expression)


@pytest.mark.parametrize("rule", by_name(recorded()))
def test_a_recorded_name_says_its_labels_and_what_was_done(rule: Rule) -> None:
    assert re.fullmatch(r"[a-z_]+:[a-z_]+:[a-z0-9_]+", rule.name)
    level(rule.name)


@pytest.mark.parametrize("rule", by_name(alerts()))
def test_an_alert_says_how_bad_it_is_what_it_means_and_where_to_read_on(rule: Rule) -> None:
    assert rule.definition["labels"]["severity"] in ("critical", "warning", "info")
    assert re.fullmatch(r"\d+m", rule.definition["for"])
    notes = rule.definition["annotations"]
    assert set(notes) == {"summary", "description", "runbook_url"}
    assert notes["runbook_url"] == f"docs/runbook.md#{rule.name.lower()}"
    assert len(notes["summary"]) < 90
    assert notes["description"].endswith(".")


@pytest.mark.parametrize("rule", by_name(alerts()))
def test_an_annotation_names_only_labels_that_the_firing_alert_has(rule: Rule) -> None:
    text = " ".join(rule.definition["annotations"].values())
    named = set(re.findall(r"\$labels\.(\w+)", text))
    firing = [
        sample["labels"]
        for case in unit_tests()
        for check in case.get("promql_expr_test", ())
        for sample in check["exp_samples"]
        if f'alertname="{rule.name}"' in sample["labels"]
    ]
    for sample in firing:
        [selector] = selectors(sample)
        assert named <= selector.labels
    # What tells two alerts of one name apart is in the text.
    [first, *_] = [next(iter(selectors(sample))) for sample in firing]
    assert first.labels - {"alertname", "alertstate", "severity", "job"} <= named | _SAID_OTHERWISE.get(
        rule.name, set()
    )


_SAID_OTHERWISE = {
    "AsynqQueueArchivedGrowing": {"state"},
    "AsynqQueueArchiveFull": {"state"},
    "OtelQueuePushFailing": {"lane"},
    "OtelQueueLedgerWithoutBirth": {"lane", "reason"},
}


def test_the_page_of_alerts_is_what_the_rules_say() -> None:
    assert PAGE.read_text(encoding="utf-8") == alerts_page()


def test_the_readers_of_expressions_find_what_is_in_them() -> None:
    expression = (
        'sum without (pod) (rate(a_total{x="{y=1}", z!~"b"}[5m] offset 1h)) / on (q) group_left (w) (c:d > 0) and e'
    )
    assert selectors(expression) == {
        Selector("a_total", frozenset({"x", "z"})),
        Selector("c:d", frozenset()),
        Selector("e", frozenset()),
    }
    assert groupings(expression) == {"pod", "q", "w"}
    assert unknown(Selector("asynq_queue_size", frozenset({"queue", "instance"}))) is None
    assert unknown(Selector("asynq_queue_size", frozenset({"project"}))) == "asynq_queue_size has no label project"
    assert (
        unknown(Selector("asynq_queue_sizes", frozenset()))
        == "asynq_queue_sizes is neither in the catalog nor recorded"
    )
    assert unknown(Selector("asynq_task_wait_seconds", frozenset())) is not None
    assert unknown(Selector("asynq_task_wait_seconds_bucket", frozenset({"le", "queue"}))) is None
