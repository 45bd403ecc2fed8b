"""What recording costs a worker: a call, and a handler while the ledger's Redis is away."""

import contextlib
import statistics
import time
from collections.abc import Callable, Iterator, Sequence

import prometheus_client
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from otel_queue.config import Config, RedisConfig
from otel_queue.ledger.connect import ledger_store
from otel_queue.ledger.writer import BufferedWriter
from otel_queue.middleware import PROJECT, Task, compose, grouped, recorded
from otel_queue.recorder import Recorder
from otel_queue.worker import Worker, views
from tests.bench.agreement import agree
from tests.bench.result import Result
from tests.recorder.reading import Labels, of, sums
from tests.servers.process import free_port
from tests.servers.proxy import slow_proxy
from tests.servers.redis import redis_server

ATTEMPTS = "convoy_event_delivery_attempts_total"
KEYS = ("project", "endpoint", "status", "http_status_code")
CALLS = 20_000
IDS = [f"01J{number:023d}" for number in range(CALLS)]
ENDPOINTS = [f"endpoint-{number}" for number in range(50)]

STOCK_BUDGET = 0.1
PROMETHEUS_BUDGET = 1.0
HANDLER_BUDGET_MS = 1.0
RUNS = 3_000
RECORDS_OF_A_RUN = 3
PAUSE_SECONDS = 0.0005


def call(bench: str) -> Iterator[Result]:
    """Attempts counted by the recorder, by the SDK's counter and by prometheus_client.

    A first, untimed round of each must count the same for every set of attributes. Two readers and the worker's Views;
    a collection after every round is part of the SDK's times and of ours. The histogram has no peer.
    """
    stock_way, our_way = _Way(), _Way()
    counter = stock_way.provider.get_meter("stock").create_counter(ATTEMPTS)
    recorder = Recorder(our_way.provider)
    prometheus = prometheus_client.Counter(ATTEMPTS, "attempts", KEYS, registry=prometheus_client.CollectorRegistry())

    def stock(number: int) -> None:
        endpoint = ENDPOINTS[number % len(ENDPOINTS)]
        counter.add(1, {"project": "p", "endpoint": endpoint, "status": "success", "http_status_code": "200"})

    def ours(number: int) -> None:
        endpoint = ENDPOINTS[number % len(ENDPOINTS)]
        recorder.attempt_made(project="p", attempt_id=IDS[number], succeeded=True, endpoint=endpoint, http_status=200)

    def theirs(number: int) -> None:
        prometheus.labels("p", ENDPOINTS[number % len(ENDPOINTS)], "success", "200").inc()

    def histogram(number: int) -> None:
        recorder.end_to_end("p", ENDPOINTS[number % len(ENDPOINTS)], 0.3)

    def timed_round() -> tuple[float, float, float]:
        return (
            _microseconds(stock, stock_way.collect),
            _microseconds(ours, our_way.collect),
            _microseconds(theirs, lambda: None),
        )

    for number in range(CALLS):
        for function in (stock, ours, theirs):
            function(number)
    agree(our_way.attempts(), stock_way.attempts())
    agree(our_way.attempts(), _attempts(prometheus))
    rounds = [timed_round() for _ in range(5)]
    # What was timed did count.
    agree(our_way.attempts(), stock_way.attempts())
    stock_us, ours_us, theirs_us = (statistics.median(taken) for taken in zip(*rounds, strict=True))
    detail = {"recorder_us": ours_us, "stock_us": stock_us, "prometheus_client_us": theirs_us}
    yield Result(bench, ours_us / stock_us, "x Counter.add", STOCK_BUDGET, detail)
    yield Result(bench, ours_us / theirs_us, "x prometheus_client", PROMETHEUS_BUDGET, detail)
    yield Result(bench, _microseconds(histogram, our_way.collect), "us per histogram observation", None)


class _Way:
    """A provider with the worker's Views and two readers, as for pull and push."""

    def __init__(self) -> None:
        self._readers = [InMemoryMetricReader(), InMemoryMetricReader()]
        self.provider = MeterProvider(metric_readers=self._readers, views=views("process"), shutdown_on_exit=False)

    def collect(self) -> None:
        for reader in self._readers:
            reader.get_metrics_data()

    def attempts(self) -> dict[Labels, float]:
        return sums(self._readers[0], ATTEMPTS)


def _attempts(counter: prometheus_client.Counter) -> dict[Labels, float]:
    return {
        of(**sample.labels): sample.value
        for metric in counter.collect()
        for sample in metric.samples
        if sample.name == ATTEMPTS
    }


def _microseconds(function: Callable[[int], None], collect: Callable[[], None]) -> float:
    """Per call."""
    started = time.perf_counter()
    for number in range(CALLS):
        function(number)
    collect()
    return (time.perf_counter() - started) / CALLS * 1e6


def handler_redis_down(bench: str) -> Iterator[Result]:
    """Milliseconds at p99 that a handler takes longer with middleware and ledger, from the first call on.

    The bare handler records nothing to compare with. After the runs, all their records must be waiting for Redis.
    """
    for away in (_refused, _stopped, _black_holed):
        with away() as url:
            config = Config(redis=RedisConfig(url=url))
            writer = BufferedWriter(ledger_store(config))
            worker = Worker(config, ledger=lambda writer=writer: writer)  # type: ignore[misc]
            around = compose(recorded(worker.recorder), grouped(worker.recorder))
            with_ledger, bare = _runs(around(_deliver), PAUSE_SECONDS), _runs(_deliver, PAUSE_SECONDS)
            back_to_back = _runs(around(_deliver), 0.0)
            agree({"records": len(writer)}, {"records": RECORDS_OF_A_RUN * (len(with_ledger) + len(back_to_back))})
            worker.shutdown(0)
        extra = _p99(with_ledger) - _p99(bare)
        detail = {
            "redis": away.__name__.strip("_"),
            "p50_ms": statistics.median(with_ledger),
            "max_ms": max(with_ledger),
            "first_ms": with_ledger[0],
            "back_to_back_p99_ms": _p99(back_to_back),
        }
        yield Result(bench, extra, "ms at p99", HANDLER_BUDGET_MS, detail)


@contextlib.contextmanager
def _refused() -> Iterator[str]:
    yield f"redis://127.0.0.1:{free_port()}/0"


@contextlib.contextmanager
def _stopped() -> Iterator[str]:
    with redis_server() as server:
        server.pause()
        yield server.url


@contextlib.contextmanager
def _black_holed() -> Iterator[str]:
    with slow_proxy(free_port()) as proxy:
        proxy.blackhole()
        yield f"redis://127.0.0.1:{proxy.port}/0"


def _deliver(task: Task) -> None:
    task.report_status("Processing")
    task.report_attempt(200)
    task.report_status("Success")


def _runs(handler: Callable[[Task], object], pause_seconds: float) -> list[float]:
    """Milliseconds of each run; with a pause between them, as of a worker that waits for endpoints."""
    taken = []
    for number in range(RUNS):
        task = Task("EventProcessor", queue="EventQueue", id=str(number), headers={PROJECT: "p"})
        time.sleep(pause_seconds)
        started = time.perf_counter()
        handler(task)
        taken.append((time.perf_counter() - started) * 1e3)
    return taken


def _p99(taken: Sequence[float]) -> float:
    return statistics.quantiles(taken, n=100)[-1]
