"""A scrape of many queues, from Redis to text."""

import statistics
import time
from collections.abc import Iterator

from otel_queue.config import Config, QueueConfig, RedisConfig
from otel_queue.pipeline import Pipeline
from tests.bench.inspector import filled_redis
from tests.bench.result import Result


def queues(bench: str) -> Iterator[Result]:
    """Milliseconds for a whole scrape through the SDK's Prometheus reader; for information."""
    for count in (9, 100, 500):
        with filled_redis(count) as server:
            settings = QueueConfig(min_interval_seconds=0.0, memory_interval_seconds=0.0)
            pipeline = Pipeline(Config(redis=RedisConfig(url=server.url), queue=settings))
            pipeline.scrape("", None)
            taken = []
            for _ in range(5):
                started = time.perf_counter()
                body = pipeline.scrape("", None).body
                taken.append(time.perf_counter() - started)
            series = sum(1 for line in body.splitlines() if not line.startswith(b"#"))
            detail = {"queues": count, "series": series, "bytes": len(body)}
            yield Result(bench, statistics.median(taken) * 1e3, "ms", None, detail)
