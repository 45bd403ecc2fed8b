"""The demo, scraped by a real Prometheus under the shipped rules, as the dashboard shows it."""

import contextlib
import json
import sys
import urllib.request
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
import yaml

from otel_queue.catalog import CATALOG, Row
from tests.operations.dashboards import EVERYTHING, queries, sent
from tests.operations.exposition import exposed
from tests.operations.promql import selectors
from tests.operations.rule_files import ALERTS, RECORDING
from tests.servers.process import ServerProcess, free_port, temporary_directory, wait_until
from tests.servers.prometheus import PrometheusServer, find_tool, prometheus_server
from tests.servers.redis import redis_program

DEMO, STATED = "otel-queue", "stated"

# Panels that the demo has nothing for, and why. They are shown an exposition that states what the catalog promises.
_WORKER = "worker processes export it, and the demo's are simulated"
_SHADOW = "needs a shadow: a database beside the ledger"
NOT_IN_DEMO = {
    "Task types": "opt-in",
    "Attempt duration, 95th percentile": _WORKER,
    "From acceptance to delivery, 95th percentile": _WORKER,
    "Handler duration, 95th percentile": _WORKER,
    "Wait before the first start, 95th percentile": _WORKER,
    "Handlers by outcome": _WORKER,
    "Handlers running": _WORKER,
    "Tasks sent": _WORKER,
    "Ingestion": _WORKER,
    "Rate limiter": _WORKER,
    "Labels dropped": _WORKER,
    "Errors": "nothing fails in the demo",
    "Within tolerance": _SHADOW,
    "Drift": _SHADOW,
    "Series on one side only": _SHADOW,
    "Known differences": _SHADOW,
    "Comparisons": _SHADOW,
    "Comparisons skipped": _SHADOW,
}

pytestmark = pytest.mark.timeout(240)


@pytest.fixture(scope="module")
def prometheus() -> Iterator[PrometheusServer]:
    """It scrapes the demo and the stated series, and evaluates the rules twice a second."""
    redis_program()  # without one the demo has no ledger
    find_tool("prometheus")
    rounds = count(1)
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        demo = stack.enter_context(demo_exporter(directory))
        stated = stack.enter_context(exposed(lambda: exposition(next(rounds))))
        config = yaml.safe_dump(
            {
                "rule_files": [str(hurried(file, directory)) for file in (RECORDING, ALERTS)],
                "scrape_configs": [
                    {"job_name": DEMO, "honor_labels": True, "static_configs": [{"targets": [demo]}]},
                    {"job_name": STATED, "honor_labels": True, "static_configs": [{"targets": [stated]}]},
                ],
            }
        )
        yield stack.enter_context(prometheus_server(config, scrape_interval="1s"))


@contextlib.contextmanager
def demo_exporter(directory: Path) -> Iterator[str]:
    """The host:port of `otel-queue demo`."""
    address = f"127.0.0.1:{free_port()}"
    process = ServerProcess(
        "otel-queue-demo",
        [str(Path(sys.executable).parent / "otel-queue"), "demo", "--listen", address, "--rate", "20"],
        is_ready=lambda: True,
        directory=directory,
    )
    process.start()
    try:
        yield address
    finally:
        process.stop()


def hurried(file: Path, directory: Path) -> Path:
    """The same rules, evaluated at a test's pace."""
    rules = yaml.safe_load(file.read_text(encoding="utf-8"))
    for group in rules["groups"]:
        group["interval"] = "500ms"
    written = directory / file.name
    written.write_text(yaml.safe_dump(rules))
    return written


def exposition(round_number: int) -> str:
    """One series of each metric that a panel of NOT_IN_DEMO reads; counters grow with the rounds."""
    read = {
        each.metric.removesuffix("_bucket")
        for query in queries()
        if query.panel in NOT_IN_DEMO
        for each in selectors(query.expression)
    }
    return "".join(family(CATALOG[name], round_number) for name in sorted(read))


def family(row: Row, number: int) -> str:
    labels = ",".join(f'{key}="some"' for key in row.keys)
    if row.kind != "histogram":
        return f"{row.name}{{{labels}}} {1 if row.kind == 'gauge' else number}\n"
    limits = [*(str(limit) for limit in row.boundaries), "+Inf"]
    return "".join(f'{row.name}_bucket{{{labels},le="{limit}"}} {number}\n' for limit in limits)


def empty(prometheus: PrometheusServer, job: str) -> set[str]:
    """The panels with a query that finds nothing."""
    variables = {**EVERYTHING, "job": job}
    return {query.panel for query in queries() if not prometheus.query(sent(query.expression, variables))}


def test_the_demo_fills_every_panel_but_those_with_a_reason(prometheus: PrometheusServer) -> None:
    wait_until(lambda: empty(prometheus, DEMO) <= set(NOT_IN_DEMO), within=90, what="the demo fills the dashboard")
    wait_until(lambda: empty(prometheus, DEMO) == set(NOT_IN_DEMO), within=10, what="the list says no panel too many")


def test_every_other_panel_is_filled_by_the_metrics_it_is_for(prometheus: PrometheusServer) -> None:
    wait_until(
        lambda: not empty(prometheus, STATED) & set(NOT_IN_DEMO), within=30, what="the stated series fill the rest"
    )


def test_the_rules_are_evaluated_without_a_complaint(prometheus: PrometheusServer) -> None:
    def evaluated() -> bool:
        with urllib.request.urlopen(f"{prometheus.url}/api/v1/rules", timeout=10) as response:
            groups = json.load(response)["data"]["groups"]
        rules = [rule for group in groups for rule in group["rules"]]
        assert [rule["lastError"] for rule in rules if rule.get("lastError")] == []
        return len(rules) > 0 and all(rule["health"] == "ok" for rule in rules)

    wait_until(evaluated, within=30, what="every rule was evaluated")


def test_nothing_is_wrong_with_the_pipeline_of_the_demo(prometheus: PrometheusServer) -> None:
    """Alerts that are pending at once would fire after their time if the demo went on as it is."""
    wait_until(lambda: empty(prometheus, DEMO) <= set(NOT_IN_DEMO), within=90, what="the demo fills the dashboard")
    stated = "|".join(sorted({"OtelQueueErrors", "OtelQueueShadowMissingSeries"}))
    wrong = prometheus.query(f'ALERTS{{alertname=~"OtelQueue.+", alertname!~"{stated}"}}')
    assert [each.labels for each in wrong] == []
