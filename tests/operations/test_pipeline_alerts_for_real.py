"""Each alert on the exporter itself fires when its fault is caused, and ends with the fault.

The faults begin together in deployments of their own; the tests run in the order in which they stand, and the last one
stops every exporter.
"""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import pytest

from tests.faults.drill import IMPATIENT, fill
from tests.operations.alert_drills import Alerts, alerting
from tests.servers.collector import CollectorServer, collector
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.redis import RedisServer, redis_server

COLLECTOR = """
receivers:
  otlp:
    protocols:
      http:
        endpoint: ${env:OTLP_HTTP_LISTEN}
exporters:
  debug: {}
service:
  telemetry:
    metrics: {level: none}
  pipelines:
    metrics:
      receivers: [otlp]
      exporters: [debug]
"""
# Values stay for longer than the drill, so that what is old is old and not absent.
CONFIG = IMPATIENT.replace("max_staleness_seconds = 1.0", "max_staleness_seconds = 600.0")
USER = "on >secret ~asynq:* +@all"

# The first build of the Collector takes minutes.
pytestmark = pytest.mark.timeout(900)


class Stage(NamedTuple):
    """`gone` loses its Redis; of two replicas one, `second`, loses its permissions; `refused` may not ask for memory.

    `refused` pushes to a Collector that dies.
    """

    gone: ServeProcess
    gone_redis: RedisServer
    first: ServeProcess
    second: ServeProcess
    refused: ServeProcess
    redis: RedisServer
    collector: CollectorServer

    def permit(self, user: str, *rules: str) -> None:
        with self.redis.client() as client:
            client.execute_command("ACL", "SETUSER", user, *rules)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    with contextlib.ExitStack() as stack:
        gone_redis = stack.enter_context(redis_server())
        shared = stack.enter_context(redis_server(users=[f"second {USER}", f"refused {USER}"]))
        for server in (gone_redis, shared):
            with server.client() as client:
                fill(client)
        receiver = stack.enter_context(collector(COLLECTOR))
        pushing = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": receiver.http_endpoint,
            "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
            "OTEL_METRIC_EXPORT_INTERVAL": "300",
        }
        made = Stage(
            gone=stack.enter_context(serve(gone_redis.url, config=CONFIG)),
            gone_redis=gone_redis,
            first=stack.enter_context(serve(shared.url, config=CONFIG)),
            second=stack.enter_context(serve(shared.url_for("second", "secret"), config=CONFIG)),
            refused=stack.enter_context(serve(shared.url_for("refused", "secret"), config=CONFIG, environment=pushing)),
            redis=shared,
            collector=receiver,
        )
        for each in (made.gone, made.first, made.second, made.refused):
            each.scrape_until(lambda found: found.value("otel_queue_up", lane="queue") == 1, what="it reads Redis")
        made.refused.scrape_until(
            lambda found: found.value("otel_queue_up", lane="otlp") == found.value("otel_queue_up", lane="memory") == 1,
            what="it pushes and samples memory",
        )
        yield made


@pytest.fixture(scope="module")
def alerts(stage: Stage) -> Iterator[Alerts]:
    deployments = {
        "gone": [stage.gone.address],
        "replicas": [stage.first.address, stage.second.address],
        "refused": [stage.refused.address],
    }
    with alerting(deployments) as found:
        stage.gone_redis.kill()
        stage.permit("second", "-@all")
        stage.permit("refused", "-memory|usage")
        stage.collector.process.kill()
        yield found


def test_a_lane_that_nobody_can_read(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("OtelQueueLaneDown", cluster="gone", lane="queue")
    alerts.fires("OtelQueueSnapshotStale", cluster="gone", lane="queue")
    alerts.fires("OtelQueueErrors", cluster="gone", lane="queue", reason="connection")
    assert not alerts.firing("OtelQueueLaneDown", cluster="replicas")
    stage.gone_redis.start()
    with stage.gone_redis.client() as client:
        fill(client)
    alerts.ends("OtelQueueLaneDown", cluster="gone")
    alerts.ends("OtelQueueSnapshotStale", cluster="gone")
    alerts.ends("OtelQueueErrors", cluster="gone")


def test_a_lane_that_one_replica_cannot_read(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("OtelQueueReplicaLaneDown", cluster="replicas", instance=stage.second.address, lane="queue")
    alerts.fires("OtelQueueErrors", cluster="replicas", lane="queue", reason="permission")
    assert not alerts.firing("OtelQueueReplicaLaneDown", instance=stage.first.address)
    stage.permit("second", "+@all")
    alerts.ends("OtelQueueReplicaLaneDown", cluster="replicas")
    alerts.ends("OtelQueueErrors", cluster="replicas")


def test_a_slow_lane_that_nobody_can_read(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("OtelQueueSlowLaneDown", cluster="refused", lane="memory")
    assert not alerts.firing("OtelQueueLaneDown", cluster="refused")
    stage.permit("refused", "+memory|usage")
    alerts.ends("OtelQueueSlowLaneDown", cluster="refused")


def test_a_push_that_nobody_takes(stage: Stage, alerts: Alerts) -> None:
    alerts.fires("OtelQueuePushFailing", cluster="refused", instance=stage.refused.address)
    assert not alerts.firing("OtelQueuePushFailing", cluster="replicas")
    stage.collector.process.start()
    alerts.ends("OtelQueuePushFailing", cluster="refused")


def test_exporters_that_are_gone(stage: Stage, alerts: Alerts) -> None:
    stage.second.process.stop()
    alerts.fires("OtelQueueTargetDown", instance=stage.second.address)
    assert not alerts.firing("OtelQueueAbsent")
    for each in (stage.gone, stage.first, stage.refused):
        each.process.stop()
    alerts.fires("OtelQueueAbsent")
    for each in (stage.first, stage.second):
        each.process.start()
    alerts.ends("OtelQueueAbsent")
    alerts.ends("OtelQueueTargetDown", cluster="replicas")
