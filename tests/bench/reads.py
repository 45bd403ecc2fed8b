"""Reading a ledger of very many projects: all of them for the first time, and when nothing changed."""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import redis

from otel_queue.config import Config, RedisConfig
from otel_queue.errors import ReadError
from otel_queue.ledger.connect import ledger_reader
from otel_queue.ledger.reader import LedgerReader
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, Record
from otel_queue.redis_client import connect
from tests.bench.result import Result
from tests.ledger.ledgers import DAY_US, now_us, ulid
from tests.servers.redis import RedisServer, redis_server

COLD_PROJECTS, MOST_READS = 30_000, 3
IDLE_PROJECTS, MOST_SECONDS = 20_000, 0.1
# In so many reads every idle project was looked at, and the whole list of projects compared.
IDLE_READS = 45
AT_ONCE = 5_000


def cold(bench: str) -> Iterator[Result]:
    """How many reads with default settings until one has all: by a new reader, and by one after a failover."""
    with redis_server() as server:
        _fill(server, COLD_PROJECTS)
        reader = _reader(server)
        for name in (bench, f"{bench}-failover"):
            seconds = _until_complete(reader)
            detail = {"projects": COLD_PROJECTS, "seconds": sum(seconds), "slowest_read_seconds": max(seconds)}
            yield Result(name, float(len(seconds)), "reads", float(MOST_READS), detail)
            with server.client() as client:
                client.save()
            server.restart()


def idle(bench: str) -> Iterator[Result]:
    """Seconds of a read when nothing changed, over as many reads as it takes to have looked at every project."""
    with redis_server() as server, server.client() as client:
        _fill(server, IDLE_PROJECTS)
        reader = _reader(server)
        _until_complete(reader)
        seconds: list[float] = []
        before = _sent_bytes(client)
        for _ in range(IDLE_READS):
            started = time.perf_counter()
            snapshot = reader.snapshot()
            seconds.append(time.perf_counter() - started)
            assert len(snapshot.projects) == IDLE_PROJECTS
        sent = (_sent_bytes(client) - before) / IDLE_READS
        detail = {"projects": IDLE_PROJECTS, "mb_a_read": sent / 1e6}
        yield Result(bench, statistics.median(seconds), "s", MOST_SECONDS, detail)
        yield Result(
            f"{bench}-slowest", max(seconds), "s", MOST_SECONDS, {"projects": IDLE_PROJECTS, "reads": IDLE_READS}
        )


def _reader(server: RedisServer) -> LedgerReader:
    return ledger_reader(Config(redis=RedisConfig(url=server.url)))


def _until_complete(reader: LedgerReader) -> list[float]:
    """How long each read took, until one had all."""
    seconds: list[float] = []
    while True:
        started = time.perf_counter()
        try:
            is_complete = not reader.snapshot().failures
        except ReadError:
            is_complete = False
        seconds.append(time.perf_counter() - started)
        if is_complete or len(seconds) == 10 * MOST_READS:
            return seconds


def _fill(server: RedisServer, projects: int) -> None:
    """Two deliveries, an event and an attempt of each project, on two days."""
    link = connect(RedisConfig(url=server.url))
    Upkeep(link).begin()
    store, now = LedgerStore(link), now_us()
    records: list[Record] = []
    for number in range(projects):
        project = f"01J{number:023d}"
        records += [
            EventCreated(project, ulid(now, 1), now, "S1"),
            DeliveryCreated(project, ulid(now, 2), now, "E1", "t", "S1", "processing"),
            DeliveryCreated(project, ulid(now - DAY_US, 3), now, "E1", "t", "S1", "success"),
            AttemptMade(project, ulid(now, 4), now, "E1", True, 200),
        ]
        if len(records) >= AT_ONCE:
            store.write(records, time.monotonic() + 60)
            records.clear()
    store.write(records, time.monotonic() + 60)
    link.close()


def _sent_bytes(client: redis.Redis) -> int:
    stats: Any = client.info("stats")
    return int(stats["total_net_output_bytes"])
