"""Workers, agent, gateway, Prometheus: each of the Collectors is killed, and the totals are right afterwards."""

import contextlib
import dataclasses
from collections.abc import Iterator

import pytest

from tests.e2e.gateways import AGENT, CONFIGS, GATEWAY, IMPATIENT, Application
from tests.e2e.pushing_worker import pushing_worker
from tests.go_program import COLLECTOR, build_go_program
from tests.servers.collector import CollectorServer, collector
from tests.servers.process import wait_until
from tests.servers.prometheus import PrometheusServer, prometheus_server

INGESTED = "convoy_ingest_total"
DURATIONS = "convoy_event_delivery_attempt_duration_seconds_count"
NOT_QUEUED = "otelcol_exporter_enqueue_failed_metric_points_total"
REFUSED = "otelcol_receiver_refused_metric_points_total"
DROPPED = "otelcol_exporter_send_failed_metric_points_total"

# The first build of the Collector takes minutes.
pytestmark = pytest.mark.timeout(900)


@dataclasses.dataclass
class Way:
    """From the agent, which workers push to, into Prometheus."""

    agent: CollectorServer
    gateway: CollectorServer
    prometheus: PrometheusServer

    def totals(self, metric: str, project: str) -> list[tuple[str, float]]:
        """Each series that Prometheus has now: whose it is, and its value."""
        series = self.prometheus.query(f'{metric}{{project="{project}"}}')
        return sorted((each.labels["job"], each.value) for each in series)

    def wait_for(self, project: str, **expected: float) -> None:
        """Until Prometheus has these series, by the worker's name, of both kinds of metrics, and no others."""
        wanted = sorted(expected.items())
        wait_until(
            lambda: all(self.totals(metric, project) == wanted for metric in (INGESTED, DURATIONS)),
            what=f"the totals of {project} are {expected}",
        )


@contextlib.contextmanager
def way(agent_overlay: str = "") -> Iterator[Way]:
    build_go_program(COLLECTOR)
    with contextlib.ExitStack() as stack:
        gateway = stack.enter_context(collector(GATEWAY))
        overlays = [IMPATIENT, *([agent_overlay] if agent_overlay else [])]
        environment = {"GATEWAY_ENDPOINT": gateway.http_endpoint, "HOST_NAME": "machine-1"}
        agent = stack.enter_context(collector(AGENT, *overlays, environment=environment))
        config = (CONFIGS / "prometheus.yaml").read_text().replace("127.0.0.1:9465", gateway.metrics_address)
        yield Way(agent, gateway, stack.enter_context(prometheus_server(config)))


@pytest.fixture(scope="module")
def shared_way() -> Iterator[Way]:
    with way() as shared:
        yield shared


@pytest.fixture(params=["gateway", "agent", "both"])
def killed(shared_way: Way, request: pytest.FixtureRequest) -> list[CollectorServer]:
    """Those that are killed, in the order in which they start again."""
    return {
        "gateway": [shared_way.gateway],
        "agent": [shared_way.agent],
        "both": [shared_way.agent, shared_way.gateway],
    }[str(request.param)]


def test_after_a_kill_the_totals_are_those_of_the_workers(
    shared_way: Way, killed: list[CollectorServer], request: pytest.FixtureRequest
) -> None:
    project = request.node.callspec.id
    with (
        pushing_worker(shared_way.agent.http_endpoint, "a") as first,
        pushing_worker(shared_way.agent.grpc_endpoint, "b", "grpc") as second,
    ):
        first.ingest(project, 3)
        second.ingest(project, 5)
        shared_way.wait_for(project, a=3, b=5)
        for server in killed:
            server.process.kill()
        first.ingest(project, 10)
        second.ingest(project, 20)
        for server in killed:
            server.process.start()
        shared_way.wait_for(project, a=13, b=25)
        first.ingest(project)
        shared_way.wait_for(project, a=14, b=25)


def test_a_worker_that_ends_while_the_gateway_is_away_leaves_its_last_totals_with_the_agent(shared_way: Way) -> None:
    """They are on disk when its last push is answered: the agent is killed right after, too."""
    with pushing_worker(shared_way.agent.http_endpoint, "ending") as worker:
        worker.ingest("last words")
        shared_way.wait_for("last words", ending=1)
        shared_way.gateway.process.kill()
        worker.ingest("last words", 41)
        assert worker.end()
    shared_way.agent.process.kill()
    shared_way.agent.process.start()
    shared_way.gateway.process.start()
    shared_way.wait_for("last words", ending=42)


def test_the_agent_says_on_which_machine_a_worker_runs_unless_the_worker_does(shared_way: Way) -> None:
    elsewhere = Application(shared_way.agent, **{"host.name": "machine-2"})
    elsewhere.meter.create_counter(INGESTED).add(1, {"project": "elsewhere", "source": "http"})
    elsewhere.push()
    with pushing_worker(shared_way.agent.http_endpoint, "somewhere") as worker:
        worker.ingest("p")
        shared_way.wait_for("p", somewhere=1)
    [about] = shared_way.prometheus.query('target_info{job="somewhere"}')
    assert about.labels["host_name"] == "machine-1"
    assert about.labels["service_version"]
    wait_until(lambda: shared_way.prometheus.query('target_info{job="app"}'), what="the other worker is there")
    [about] = shared_way.prometheus.query('target_info{job="app"}')
    assert about.labels["host_name"] == "machine-2"


FULL_AT_ONCE = """
exporters:
  otlp_http/gateway:
    sending_queue:
      queue_size: 4_000
"""


def test_a_full_queue_refuses_visibly_and_the_totals_come_right_after_the_outage() -> None:
    with way(FULL_AT_ONCE) as narrow, pushing_worker(narrow.agent.http_endpoint, "w") as worker:
        worker.ingest("p")
        narrow.wait_for("p", w=1)
        narrow.gateway.process.kill()
        worker.ingest("p", 10)
        wait_until(lambda: narrow.agent.own_metrics().values(NOT_QUEUED), what="a push is refused")
        told = narrow.agent.own_metrics()
        assert sum(told.values(REFUSED)) > 0
        assert told.values("otelcol_exporter_queue_capacity") == [4_000]
        assert 0 < told.values("otelcol_exporter_queue_size")[0] <= 4_000
        worker.ingest("p", 10)
        narrow.gateway.process.start()
        narrow.wait_for("p", w=21)


ONE_PUSH_AT_A_TIME = """
exporters:
  otlp_http/gateway:
    sending_queue:
      batch:
        flush_timeout: 1ms
"""
TAKES_SMALL_PUSHES = """
receivers:
  otlp:
    protocols:
      http:
        max_request_body_size: 4_000
"""


def test_a_push_that_the_gateway_will_never_take_is_dropped_and_counted_and_holds_up_nothing() -> None:
    build_go_program(COLLECTOR)
    with (
        collector(GATEWAY, TAKES_SMALL_PUSHES) as gateway,
        collector(
            AGENT, IMPATIENT, ONE_PUSH_AT_A_TIME, environment={"GATEWAY_ENDPOINT": gateway.http_endpoint}
        ) as agent,
        pushing_worker(agent.http_endpoint, "large") as large,
        pushing_worker(agent.http_endpoint, "small") as small,
    ):
        for number in range(200):
            large.ingest(f"p{number}")
        wait_until(lambda: sum(agent.own_metrics().values(DROPPED)) > 200, what="a large push is dropped")
        small.ingest("p", 3)
        wait_until(lambda: gateway.page().value(INGESTED, job="small") == 3, what="a small push arrives")


def test_a_series_that_is_no_longer_pushed_leaves_the_page_and_others_stay() -> None:
    build_go_program(COLLECTOR)
    with (
        collector(GATEWAY, environment={"METRIC_EXPIRATION": "3s"}) as gateway,
        pushing_worker(gateway.http_endpoint, "going") as going,
        pushing_worker(gateway.http_endpoint, "staying") as staying,
    ):
        for worker in (going, staying):
            worker.ingest("p")
        wait_until(lambda: len(gateway.page().values(INGESTED, project="p")) == 2, what="both are shown")
        going.kill()

        def only_one_is_left() -> bool:
            page = gateway.page()
            gone = not page.values(INGESTED, job="going") and not page.values("target_info", job="going")
            return gone and page.value(INGESTED, job="staying") == 1

        wait_until(only_one_is_left, what="the worker that is gone has left the page")
