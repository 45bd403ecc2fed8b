"""The example scrape configuration, by a real Prometheus: a Convoy and otel-queue side by side."""

import contextlib
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest
import yaml

from otel_queue.catalog import CATALOG
from otel_queue.config import ServerConfig
from tests.operations.exposition import exposed
from tests.operations.rule_files import PROMETHEUS
from tests.servers.process import wait_until
from tests.servers.prometheus import PrometheusServer, find_tool, prometheus_server

CONFIG = PROMETHEUS / "prometheus.yaml"
# Convoy's names that otel-queue exports too: the domain's, and those of the two queues.
TAKEN = {row.name for row in CATALOG.values() if row.owner == "ledger" and row.stability == "stable"} | {
    row.name for row in CATALOG.values() if row.owner == "inspector" and row.name.startswith("convoy_")
}
LABELS = '{project="p",endpoint="e",source="http",status="success"}'


def page(names: set[str], value: int) -> str:
    return "".join(f"# TYPE {name} gauge\n{name}{LABELS} {value}\n" for name in sorted(names))


@contextlib.contextmanager
def scraped(config: str) -> Iterator[PrometheusServer]:
    """A Convoy that says 1 and an otel-queue that says 2, both scraped."""
    with (
        exposed(lambda: page(TAKEN | {"convoy_ingest_total"}, 1)) as convoy,
        exposed(lambda: page(TAKEN, 2)) as otel_queue,
    ):
        settings = yaml.safe_load(config.replace("127.0.0.1:5005", convoy).replace("127.0.0.1:9464", otel_queue))
        del settings["rule_files"]
        for job in settings["scrape_configs"]:
            job.pop("scrape_timeout", None)  # it would be longer than a test's interval
        # As the operator of Kubernetes does it: the name of the port, as a label of the target.
        settings["scrape_configs"][0]["static_configs"][0]["labels"]["endpoint"] = "metrics"
        with prometheus_server(yaml.safe_dump(settings)) as prometheus:
            wait_until(lambda: len(prometheus.query("up == 1")) == 2, what="both are scraped")
            yield prometheus


def values(prometheus: PrometheusServer, names: str) -> dict[tuple[str, str], float]:
    found = prometheus.query(f'{{__name__=~"{names}"}}')
    return {(each.labels["__name__"], each.labels["job"]): each.value for each in found}


def test_promtool_accepts_the_example_and_the_rules_it_names() -> None:
    run = subprocess.run([find_tool("promtool"), "check", "config", CONFIG], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr
    assert "2 rule files found" in run.stdout


def test_a_scrape_may_take_longer_than_the_exporter_does() -> None:
    [job] = [job for job in scrape_configs() if job["job_name"] == "otel-queue"]
    assert float(job["scrape_timeout"].removesuffix("s")) > ServerConfig().scrape_budget_seconds


def test_what_both_export_comes_from_otel_queue_alone_and_the_rest_of_convoy_stays() -> None:
    with scraped(CONFIG.read_text(encoding="utf-8")) as prometheus:
        assert values(prometheus, "convoy_.+") == {
            **{(name, "otel-queue"): 2.0 for name in TAKEN},
            ("convoy_ingest_total", "convoy"): 1.0,
        }


def test_the_other_rule_renames_what_convoy_exports() -> None:
    with scraped(with_the_other_rule(CONFIG.read_text(encoding="utf-8"))) as prometheus:
        assert values(prometheus, "convoy_.+") == {
            **{(name, "otel-queue"): 2.0 for name in TAKEN},
            **{(f"{name}_convoy", "convoy"): 1.0 for name in TAKEN},
            ("convoy_ingest_total", "convoy"): 1.0,
        }


@pytest.mark.parametrize(("honor", "endpoint"), [(True, "e"), (False, "metrics")])
def test_the_endpoint_of_a_series_stays_because_labels_are_honoured(honor: bool, endpoint: str) -> None:
    config = CONFIG.read_text(encoding="utf-8")
    if not honor:
        config = config.replace("honor_labels: true", "honor_labels: false")
    with scraped(config) as prometheus:
        [series] = prometheus.query("convoy_event_queue_total")
        assert series.labels["endpoint"] == endpoint


def scrape_configs() -> list[dict[str, Any]]:
    jobs: list[dict[str, Any]] = yaml.safe_load(CONFIG.read_text(encoding="utf-8"))["scrape_configs"]
    return jobs


def with_the_other_rule(text: str) -> str:
    """The text with its last commented rule taken in the place of the one that drops."""
    before, _, rest = text.partition("    metric_relabel_configs:\n")
    other = rest[rest.index("      # - source_labels") :]
    return before + "    metric_relabel_configs:\n" + other.replace("      # ", "      ")
