"""The gateway keeps the catalog's allow lists for senders that do not: names, attribute keys, resource attributes."""

import json
import operator
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from otel_queue.catalog import CATALOG, Row
from otel_queue.cli import FINE, main
from otel_queue.config import Config
from otel_queue.export.allow_lists import collector_processors
from tests.e2e.gateways import GATEWAY, WITHOUT_LISTS, Application
from tests.go_program import COLLECTOR, build_go_program
from tests.servers.collector import CollectorServer, collector
from tests.servers.otel_queue import Scrape

# The first build of the Collector takes minutes.
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def gateway() -> Iterator[CollectorServer]:
    build_go_program(COLLECTOR)
    with collector(GATEWAY) as server:
        yield server


def two_customers(gateway: CollectorServer) -> Scrape:
    """What the gateway shows of an application that counts by a customer's mail address, too."""
    application = Application(gateway, **{"user.mail": "a@example.org"})
    ingested = application.meter.create_counter("convoy_ingest_total")
    ingested.add(3, {"project": "p", "source": "http", "customer": "a@example.org"})
    ingested.add(4, {"project": "p", "source": "http", "customer": "b@example.org"})
    ingested.add(5, {"project": "q", "source": "http", "customer": "a@example.org"})
    application.push()
    return gateway.page()


def test_a_label_that_is_not_in_the_catalog_does_not_arrive_and_its_counts_are_summed(
    gateway: CollectorServer,
) -> None:
    page = two_customers(gateway)
    assert page.value("convoy_ingest_total", project="p", source="http") == 7
    assert page.value("convoy_ingest_total", project="q", source="http") == 5
    assert "customer" not in page.text
    assert "example.org" not in page.text


def test_without_the_lists_the_label_arrives() -> None:
    with collector(GATEWAY, WITHOUT_LISTS) as gateway:
        page = two_customers(gateway)
    assert page.value("convoy_ingest_total", project="p", customer="b@example.org") == 4
    assert page.value("target_info", user_mail="a@example.org") == 1


def test_of_ages_that_become_one_the_largest_is_shown(gateway: CollectorServer) -> None:
    application = Application(gateway)
    latency = application.meter.create_gauge("asynq_queue_latency_seconds")
    for shard, seconds in (("a", 2.5), ("b", 7.5), ("c", 1.5)):
        latency.set(seconds, {"queue": "q", "shard": shard})
    application.push()
    assert gateway.page().value("asynq_queue_latency_seconds", queue="q") == 7.5


def test_histograms_that_become_one_are_added_bucket_by_bucket(gateway: CollectorServer) -> None:
    application = Application(gateway)
    wait = application.meter.create_histogram(
        "asynq_task_wait_seconds", explicit_bucket_boundaries_advisory=CATALOG["asynq_task_wait_seconds"].boundaries
    )
    for host, seconds in (("a", 0.02), ("b", 0.02), ("b", 200.0)):
        wait.record(seconds, {"queue": "q", "task_type": "t", "host": host})
    application.push()
    page = gateway.page()
    assert page.value("asynq_task_wait_seconds_count", queue="q", task_type="t") == 3
    assert page.value("asynq_task_wait_seconds_bucket", queue="q", task_type="t", le="0.025") == 2


def sample_name(row: Row) -> str:
    """As the parser reads it: it gives a counter the _total that Convoy's two do not have."""
    if row.kind == "histogram":
        return f"{row.name}_sum"
    return f"{row.name.removesuffix('_total')}_total" if row.kind == "counter" else row.name


def test_every_metric_of_the_catalog_passes_under_its_name_with_the_keys_of_its_row_and_no_others(
    gateway: CollectorServer,
) -> None:
    application = Application(gateway)
    for row in CATALOG.values():
        for rogue, value in (("x", 2), ("y", 5)):
            application.record(row, value, {**dict.fromkeys(row.keys, "v"), "rogue": rogue})
    application.push()
    page = gateway.page()
    for row in CATALOG.values():
        told = dict.fromkeys(row.keys, "v")
        expected = 7 if row.kind == "histogram" or row.combine is operator.add else 5
        assert page.value(sample_name(row), **told) == expected, row.name
    shown = {line.split()[2] for line in page.text.splitlines() if line.startswith("# TYPE ")}
    assert shown == {*CATALOG, "target_info"}
    assert "rogue" not in page.text


def test_a_metric_that_is_not_in_the_catalog_is_dropped_and_counted(gateway: CollectorServer) -> None:
    application = Application(gateway)
    application.meter.create_counter("http_requests_total").add(1, {"path": "/a"})
    application.meter.create_counter("convoy_ingest_total").add(1, {"project": "p", "source": "http"})
    application.push()
    assert gateway.page().names() == {"convoy_ingest_total", "target_info"}
    assert gateway.own_metrics().value("otelcol_processor_filter_datapoints_filtered_total") == 1


def test_only_what_names_the_sender_is_left_of_a_resource(gateway: CollectorServer) -> None:
    allowed = {
        "service.namespace": "shop",
        "service.version": "1.2",
        "telemetry.sdk.name": "opentelemetry",
        "host.name": "h1",
        "deployment.environment.name": "prod",
    }
    application = Application(gateway, **allowed, **{"process.pid": "41", "process.command_line": "worker --token x"})
    application.meter.create_counter("convoy_ingest_total").add(1, {"project": "p", "source": "http"})
    application.push()
    page = gateway.page()
    assert page.value("convoy_ingest_total", job="shop/app", instance="app-1") == 1
    told = {key.replace(".", "_"): value for key, value in allowed.items() if key != "service.namespace"}
    assert page.value("target_info", job="shop/app", instance="app-1", **told) == 1
    assert "process" not in page.text


def test_a_new_version_of_a_sender_takes_the_place_of_the_old_one(gateway: CollectorServer) -> None:
    queues = [f"q{number}" for number in range(20)]
    for version, value in (("0.1.0", 7), ("0.2.0", 1)):
        application = Application(gateway, scope_version=version)
        size = application.meter.create_gauge("asynq_queue_size")
        for queue in queues:
            size.set(value, {"queue": queue})
        application.push()
    page = gateway.page()
    assert [page.value("asynq_queue_size", queue=queue) for queue in queues] == [1] * len(queues)


def summary(name: str) -> dict[str, Any]:
    return {"name": name, "summary": {"dataPoints": [{"timeUnixNano": "1", "count": "1", "sum": 1.0}]}}


def test_a_kind_that_cannot_be_aggregated_is_dropped_and_takes_nothing_along(gateway: CollectorServer) -> None:
    """Refused, it would be sent again and again by an agent, and hold up all that is behind it."""
    size = {"name": "asynq_queue_size", "gauge": {"dataPoints": [{"timeUnixNano": "1", "asInt": "3"}]}}
    metrics = [summary("asynq_tasks_failed_total"), size]
    body = json.dumps({"resourceMetrics": [{"scopeMetrics": [{"metrics": metrics}]}]})
    request = urllib.request.Request(
        f"{gateway.http_endpoint}/v1/metrics", body.encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as response:
        assert response.status == 200
    assert gateway.page().value("asynq_queue_size") == 3
    assert gateway.page().names() == {"asynq_queue_size"}


def test_a_narrower_list_of_the_configuration_narrows_the_gateway_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "otel-queue.toml"
    config.write_text('[attributes]\nconvoy_ingest_total = ["project"]\nasynq_servers = []\n')
    assert main(["catalog", "--collector", "--config", str(config)]) == FINE
    with collector(GATEWAY, capsys.readouterr().out) as gateway:
        application = Application(gateway)
        for number in range(3):
            labels = {"project": "p", "source": f"s{number}"}
            application.meter.create_counter("convoy_ingest_total").add(1, labels)
            application.meter.create_counter("convoy_ingest_success").add(1, labels)
            application.meter.create_gauge("asynq_servers").set(2, {"status": f"s{number}"})
        application.push()
        page = gateway.page()
    assert page.value("convoy_ingest_total", project="p") == 3
    assert page.value("asynq_servers") == 6
    assert len(page.values(sample_name(CATALOG["convoy_ingest_success"]), project="p")) == 3


def test_the_shipped_gateway_has_the_lists_of_the_catalog() -> None:
    assert GATEWAY.endswith(collector_processors(Config().attributes))
