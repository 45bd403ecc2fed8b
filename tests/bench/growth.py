"""How an exporter grows: time of a scrape and resident memory of `serve`, with queues, series and shards."""

import contextlib
import statistics
import time
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, Record
from tests.bench.inspector import filled_redis
from tests.bench.result import Result
from tests.ledger.ledgers import DAY_US, Ledger, now_us, ulid
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.redis import redis_server

QUEUES = (10, 100, 500, 2_000)
SERIES = (1_000, 10_000, 50_000, 200_000)
SHARDS = (1, 2, 4)
STATUSES = ("scheduled", "processing", "retry", "failure", "success")
PROJECTS = 40
AT_ONCE = 10_000
SCRAPES = 5
CONFIG = """
[queue]
min_interval_seconds = 0
timeout_seconds = 30
[domain]
source = "{source}"
shard = "{shard}"
most_series = 1000000
[ledger]
timeout_seconds = 60
[server]
scrape_budget_seconds = 60
"""


def queues(bench: str) -> Iterator[Result]:
    """Scrapes of the queue lane."""
    for count in QUEUES:
        with filled_redis(count) as server, _serving(server.url, source="none") as exporter:
            yield _result(bench, exporter, {"queues": count})


def series(bench: str) -> Iterator[Result]:
    """Scrapes of the domain lane; the last size also divided among shards."""
    for count in SERIES:
        with redis_server() as server, closing(Ledger(server.url)) as ledger:
            _fill(ledger, count)
            for shards in SHARDS if count == SERIES[-1] else (1,):
                with _serving(server.url, source="ledger", shard=f"0/{shards}") as exporter:
                    yield _result(bench, exporter, {"series_of_deliveries": count, "shards": shards})


@contextlib.contextmanager
def _serving(url: str, *, source: str, shard: str = "0/1") -> Iterator[ServeProcess]:
    with serve(url, config=CONFIG.format(source=source, shard=shard)) as exporter:
        yield exporter


def _fill(ledger: Ledger, count: int) -> None:
    """One delivery for each series: projects, endpoints and statuses multiplied."""
    created = now_us() - DAY_US
    records: list[Record] = []
    for number in range(count):
        project, endpoint = f"project-{number % PROJECTS}", f"endpoint-{number // PROJECTS // len(STATUSES):05d}"
        status = STATUSES[number // PROJECTS % len(STATUSES)]
        event, delivery = ulid(created, 2 * number), ulid(created, 2 * number + 1)
        if number % 10 == 0:
            records.append(EventCreated(project, event, created, "S1"))
            records.append(AttemptMade(project, event, created, endpoint, status == "success", 200))
        records.append(DeliveryCreated(project, delivery, created, endpoint, "t", "S1", status))
        if len(records) >= AT_ONCE:
            ledger.write(*records)
            records.clear()
    ledger.write(*records)


def _result(bench: str, exporter: ServeProcess, detail: dict[str, object]) -> Result:
    first, size = _scrape(exporter)
    again = [_scrape(exporter)[0] for _ in range(SCRAPES)]
    scraped = statistics.median(again)
    detail |= {"first_scrape_ms": first * 1e3, "page_mb": size / 1e6, "resident_mb": _resident_mb(exporter)}
    return Result(bench, scraped * 1e3, "ms a scrape", None, detail)


def _scrape(exporter: ServeProcess) -> tuple[float, int]:
    started = time.perf_counter()
    with urllib.request.urlopen(exporter.url, timeout=120) as response:
        return time.perf_counter() - started, len(response.read())


def _resident_mb(exporter: ServeProcess) -> float:
    [line] = [
        line
        for line in Path(f"/proc/{exporter.process.pid}/status").read_text(encoding="ascii").splitlines()
        if line.startswith("VmRSS")
    ]
    return int(line.split()[1]) / 1024
