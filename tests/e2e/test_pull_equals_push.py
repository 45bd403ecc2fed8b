"""The same series reach Prometheus whichever way they take: scraped, or pushed by OTLP through a Collector."""

import contextlib
import dataclasses
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_queue.asynq.message import TaskMessage
from otel_queue.catalog import exported_by
from otel_queue.demo.broker import Broker
from otel_queue.version import __version__
from tests.e2e.lively_redis import fill
from tests.go_program import COLLECTOR, build_go_program
from tests.servers.collector import collector
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.process import wait_until
from tests.servers.prometheus import MetricMetadata, PrometheusServer, Series, prometheus_server
from tests.servers.redis import RedisServer, redis_server

CONFIGS = Path(__file__).parents[2] / "collector-config"
PROTOCOLS = ("http/protobuf", "grpc")
PULL_JOB, GATEWAY_JOB = "otel-queue", "otel-collector"

# Each way names where a series came from in its own fashion. Scraped: `job` and `instance` are the target's, and
# target_info carries the service's own. Pushed: the Collector makes `job` and `instance` of the service's.
PATH_LABELS = {"job", "instance", "service_name", "service_instance_id"}
# Written by Prometheus about each of its scrapes. Those of the push's scrape carry the gateway's job.
SCRAPE_SERIES = {
    "up",
    "scrape_duration_seconds",
    "scrape_samples_post_metric_relabeling",
    "scrape_samples_scraped",
    "scrape_series_added",
}
# Ages and durations, which differ from one moment to the next; their names and keys are compared all the same.
MOVING = {
    "asynq_queue_latency_seconds",
    "asynq_queue_overdue_seconds",
    "asynq_scheduler_lateness_seconds",
    "otel_queue_collect_duration_seconds",
    "otel_queue_last_success_timestamp_seconds",
    "otel_queue_snapshot_age_seconds",
}

# The first build of the Collector takes minutes.
pytestmark = pytest.mark.timeout(900)


@dataclasses.dataclass
class Paths:
    """One Redis; one `otel-queue serve` per OTLP protocol; one Prometheus that gets each of them both ways."""

    redis: RedisServer
    serves: dict[str, ServeProcess]
    prometheus: PrometheusServer

    def pulled(self, protocol: str) -> list[Series]:
        return self.prometheus.query(f'{{job="{PULL_JOB}",instance="{self.serves[protocol].address}"}}')

    def pushed(self, protocol: str) -> list[Series]:
        return self.prometheus.query(f'{{job="{service_name(protocol)}"}}')


def service_name(protocol: str) -> str:
    return f"pushed-by-{protocol.replace('/', '-')}"


@pytest.fixture(scope="module")
def paths() -> Iterator[Paths]:
    build_go_program(COLLECTOR)
    with contextlib.ExitStack() as stack:
        redis = stack.enter_context(redis_server())
        with redis.client() as client:
            fill(client)
        gateway = stack.enter_context(collector((CONFIGS / "gateway.yaml").read_text()))
        serves = {}
        for protocol in PROTOCOLS:
            endpoint = gateway.grpc_endpoint if protocol == "grpc" else gateway.http_endpoint
            environment = {
                "OTEL_EXPORTER_OTLP_ENDPOINT": endpoint,
                "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
                "OTEL_METRIC_EXPORT_INTERVAL": "500",
                "OTEL_SERVICE_NAME": service_name(protocol),
            }
            config = """
                [queue]
                min_interval_seconds = 0.2
                memory_interval_seconds = 0.5
                task_types_interval_seconds = 0.5
            """
            serves[protocol] = stack.enter_context(serve(redis.url, config=config, environment=environment))
        addresses = ", ".join(f'"{each.address}"' for each in serves.values())
        config = (CONFIGS / "prometheus.yaml").read_text()
        config = config.replace('"127.0.0.1:9464"', addresses).replace("127.0.0.1:9465", gateway.metrics_address)
        prometheus = stack.enter_context(prometheus_server(config, scrape_interval="500ms"))
        yield Paths(redis, serves, prometheus)


def names(series: list[Series]) -> set[str]:
    return {each.labels["__name__"] for each in series}


def comparable(series: list[Series]) -> dict[frozenset[tuple[str, str]], float | None]:
    """The values by name and labels, without what a path adds by design; None where the value moves."""
    return {
        frozenset((key, value) for key, value in each.labels.items() if key not in PATH_LABELS): (
            None if each.labels["__name__"] in MOVING else each.value
        )
        for each in series
        if each.labels["__name__"] not in SCRAPE_SERIES
    }


def differences(paths: Paths, protocol: str) -> list[str]:
    pulled, pushed = comparable(paths.pulled(protocol)), comparable(paths.pushed(protocol))
    return [
        f"{sorted(labels)}: pulled {pulled.get(labels, 'absent')}, pushed {pushed.get(labels, 'absent')}"
        for labels in pulled.keys() | pushed.keys()
        if labels not in pulled or labels not in pushed or pulled[labels] != pushed[labels]
    ]


def wait_until_equal(paths: Paths, protocol: str) -> None:
    latest: list[str] = []

    def is_equal() -> bool:
        latest[:] = differences(paths, protocol)
        return not latest and bool(paths.pulled(protocol))

    try:
        wait_until(is_equal, within=30, what="pull and push agree")
    except AssertionError as error:
        complaints = "\n".join([*latest, *paths.prometheus.target_errors()])
        raise AssertionError(f"{error}\n{complaints}\n{paths.serves[protocol].process.logs()[-2_000:]}") from error


def metadata(paths: Paths, job: str, series: list[Series]) -> dict[str, MetricMetadata]:
    told = paths.prometheus.metadata(job)
    # target_info has another type in each text format; it is not among the metrics of the catalog.
    wanted = names(series) - SCRAPE_SERIES - {"target_info"}
    # OpenMetrics, which Prometheus prefers where it is offered, names a counter's family without _total.
    return {name: told.get(name) or told[name.removesuffix("_total")] for name in wanted}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_pull_and_push_carry_the_same_series_with_the_same_values(paths: Paths, protocol: str) -> None:
    wait_until_equal(paths, protocol)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_path_adds_no_name_but_what_prometheus_writes_about_a_scrape(paths: Paths, protocol: str) -> None:
    wait_until_equal(paths, protocol)
    assert names(paths.pulled(protocol)) - names(paths.pushed(protocol)) == SCRAPE_SERIES
    assert names(paths.pushed(protocol)) <= names(paths.pulled(protocol))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_job_and_instance_of_a_pushed_series_are_the_name_and_instance_of_the_service(
    paths: Paths, protocol: str
) -> None:
    wait_until_equal(paths, protocol)
    [about] = [each.labels for each in paths.pulled(protocol) if each.labels["__name__"] == "target_info"]
    found = {(each.labels["job"], each.labels["instance"]) for each in paths.pushed(protocol)}
    assert found == {(service_name(protocol), about["service_instance_id"])}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_series_carries_a_label_that_only_opentelemetry_knows(paths: Paths, protocol: str) -> None:
    wait_until_equal(paths, protocol)
    keys = {
        key
        for each in paths.pulled(protocol) + paths.pushed(protocol)
        if each.labels["__name__"] != "target_info"
        for key in each.labels
    }
    assert not {key for key in keys if key.startswith(("otel_", "service_", "telemetry_", "exported_"))}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_type_and_help_of_every_name_are_the_same_on_both_paths(paths: Paths, protocol: str) -> None:
    wait_until_equal(paths, protocol)
    pulled = metadata(paths, PULL_JOB, paths.pulled(protocol))
    pushed = metadata(paths, GATEWAY_JOB, paths.pushed(protocol))
    assert pulled == pushed


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_the_comparison_covers_every_queue_metric_of_the_catalog(paths: Paths, protocol: str) -> None:
    expected = {row.name for row in exported_by("inspector", __version__)}
    wait_until(
        lambda: expected <= names(paths.pulled(protocol)) and expected <= names(paths.pushed(protocol)),
        what="every queue metric has arrived",
    )


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_task_enqueued_later_shows_on_both_paths(paths: Paths, protocol: str) -> None:
    queue = "default"
    task = TaskMessage("email:send", id=f"later-{protocol}", queue=queue)
    with paths.redis.client() as client:
        pending = client.llen("asynq:{default}:pending")
        Broker(client, time.time).enqueue(task)

    def shows(series: list[Series]) -> bool:
        wanted = {"__name__": "asynq_tasks_enqueued_total", "queue": queue, "state": "pending"}
        return [each.value for each in series if wanted.items() <= each.labels.items()] == [pending + 1]

    wait_until(lambda: shows(paths.pulled(protocol)), what="the task is pulled")
    wait_until(lambda: shows(paths.pushed(protocol)), what="the task is pushed")
