"""The whole of pull, from a real Redis to text; Redis may be missing."""

import threading

import pytest
from prometheus_client.parser import text_string_to_metric_families

from otel_queue.cli.serve import serve
from otel_queue.config import (
    Config,
    DomainConfig,
    LedgerConfig,
    OpenTelemetryConfig,
    OtlpConfig,
    PostgresConfig,
    QueueConfig,
    RedisConfig,
    Secret,
    ServerConfig,
)
from otel_queue.pipeline import Pipeline
from tests.asynq_writer import AsynqWriter
from tests.export.ways_out import otlp_sink
from tests.servers.process import wait_until

NOWHERE = "redis://127.0.0.1:1/0"


def pipeline(url: str, **queue: float) -> Pipeline:
    settings: dict[str, float] = {"min_interval_seconds": 0.0, "memory_interval_seconds": 0.0, **queue}
    return Pipeline(Config(redis=RedisConfig(url=url), queue=QueueConfig(**settings)))  # type: ignore[arg-type]


def scrape(exporter: Pipeline) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exporter.scrape("", None).body.decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_scrape_shows_what_is_in_redis_now(redis_url: str) -> None:
    writer = AsynqWriter(redis_url)
    exporter = pipeline(redis_url)
    writer.pending("default", count=2, age_seconds=5)
    assert scrape(exporter)["asynq_queue_size", (("queue", "default"),)] == 2
    writer.pending("default", count=3, age_seconds=5)
    found = scrape(exporter)
    assert found["asynq_queue_size", (("queue", "default"),)] == 5
    assert found["otel_queue_up", (("lane", "queue"),)] == 1


def test_a_queue_that_is_removed_disappears_from_the_next_scrape(redis_url: str) -> None:
    writer = AsynqWriter(redis_url)
    writer.pending("default")
    exporter = pipeline(redis_url)
    scrape(exporter)
    writer.redis.flushall()
    assert not [name for name, _ in scrape(exporter) if name == "asynq_queue_size"]


def test_while_lanes_share_what_they_read_for_long_a_scrape_still_tells_its_age(redis_url: str) -> None:
    AsynqWriter(redis_url).pending("default", count=2, age_seconds=5)
    exporter = pipeline(redis_url, min_interval_seconds=600.0, max_staleness_seconds=900.0)
    age = ("otel_queue_snapshot_age_seconds", (("lane", "queue"),))
    first = scrape(exporter)[age]
    wait_until(lambda: scrape(exporter)[age] > first, within=10.0, what="the age grows")
    assert scrape(exporter)["asynq_queue_size", (("queue", "default"),)] == 2


def test_without_redis_the_page_says_down_and_counts_why_and_shows_no_zero() -> None:
    found = scrape(pipeline(NOWHERE))
    assert found["otel_queue_up", (("lane", "queue"),)] == 0
    assert found["otel_queue_errors_total", (("lane", "queue"), ("reason", "connection"))] == 1
    assert not [name for name, _ in found if name.startswith(("asynq_", "convoy_"))]


def test_readiness_reads_redis(redis_url: str) -> None:
    assert pipeline(redis_url).ready().ok
    down = pipeline(NOWHERE).ready()
    assert not down.ok
    assert "127.0.0.1:1" in down.detail


def test_status_names_lanes_and_their_source_without_a_password(redis_url: str) -> None:
    exporter = pipeline(redis_url.replace("redis://", "redis://user:hunter2@"))
    [lane] = exporter.status().lanes
    assert (lane.name, lane.up) == ("queue", None)
    assert "hunter2" not in repr(exporter.status())


def test_every_lane_shows_where_it_reads() -> None:
    config = Config(
        redis=RedisConfig(url=NOWHERE),
        domain=DomainConfig(source="ledger", shadow="postgres"),
        ledger=LedgerConfig(url="redis://127.0.0.1:2/0", retention_days=30),
        postgres=PostgresConfig(dsn=Secret("postgres://127.0.0.1:1/none")),
    )
    shown = {lane.name: lane.source for lane in Pipeline(config).status().lanes}
    ledger = "redis://127.0.0.1:2/0"
    assert shown == {
        "queue": NOWHERE, "memory": NOWHERE, "ledger": ledger, "retention": ledger, "shadow": ledger,
        "postgres": "PostgreSQL",
    }  # fmt: skip


@pytest.mark.parametrize(("arrives", "said"), [(True, []), (False, ["the last OTLP push did not arrive"])])
def test_a_last_push_that_fails_is_told_by_shutdown_and_by_serve(
    arrives: bool, said: list[str], redis_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    with otlp_sink() as sink:
        where = sink.url if arrives else "http://127.0.0.1:1/v1/metrics"
        config = Config(
            redis=RedisConfig(url=redis_url),
            server=ServerConfig(listen="127.0.0.1:0"),
            otlp=OtlpConfig(enabled=True, shutdown_timeout_seconds=20.0 if arrives else 1.0),
            opentelemetry=OpenTelemetryConfig(endpoint=where),
        )
        assert Pipeline(config).shutdown() is arrives
        stopped = threading.Event()
        stopped.set()
        serve(config, stopped)
    assert [record.message for record in caplog.records if "last OTLP push" in record.message] == said


def test_opted_in_task_types_are_exported_by_type(redis_url: str) -> None:
    AsynqWriter(redis_url).pending("default", count=3)
    exporter = pipeline(redis_url, task_types_interval_seconds=60.0)
    key = ("asynq_task_types_sampled", (("queue", "default"), ("state", "pending"), ("task_type", "t")))
    for _ in range(200):  # the lane is read in the background
        if key in (found := scrape(exporter)):
            break
    assert found[key] == 3


@pytest.mark.parametrize("name", ["service.instance.id", "service.name"])
def test_resource_attributes_that_the_user_sets_stand(name: str, redis_url: str) -> None:
    chosen = OpenTelemetryConfig(resource={name: "chosen"})
    found = scrape(Pipeline(Config(redis=RedisConfig(url=redis_url), opentelemetry=chosen)))
    [labels] = [dict(labels) for sample, labels in found if sample == "target_info"]
    assert labels[name.replace(".", "_")] == "chosen"


def test_the_instance_is_the_same_after_a_restart(redis_url: str) -> None:
    first, second = (
        [labels for sample, labels in scrape(pipeline(redis_url)) if sample == "target_info"] for _ in range(2)
    )
    assert first == second
