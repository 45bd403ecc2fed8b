"""Merging the ledger of a follower into the ledger of hooks: seeding it, and finding that nothing differs."""

import os
import resource
import time
import tracemalloc
from collections.abc import Iterator

from otel_queue.config import Config, RedisConfig
from otel_queue.ledger.connect import ledger_side
from otel_queue.ledger.merge import Merge, Side
from otel_queue.lifecycle import AttemptMade, DeliveryRead, EventCreated, Record
from tests.bench.agreement import agree
from tests.bench.result import Result
from tests.ledger.ledgers import DAY_US, now_us, ulid
from tests.servers.redis import redis_server

DELIVERIES = int(os.environ.get("BENCH_MERGE_DELIVERIES", "3000000"))
DAYS = 30
AT_ONCE = 2_048
LABEL_SETS = 300


def merge(bench: str) -> Iterator[Result]:
    """Seconds to merge so many deliveries, a third as many events, and a week's attempts.

    Memory is what Python takes at the most beyond what it had; it is measured in runs of its own, which are slower.
    """
    with redis_server() as server:
        config = Config(redis=RedisConfig(url=server.url))
        rows, hooks = ledger_side(config.followed), ledger_side(config)
        for side in (rows, hooks):
            side.upkeep.begin()
        _fill(rows)
        with server.client() as client:
            client.set("oq-db:swept", now_us())
            for name in ("seed", "again"):
                began, used = time.perf_counter(), _processor_seconds()
                report = Merge(rows, hooks).run()
                seconds = time.perf_counter() - began
                detail = {
                    "run": name,
                    "deliveries": DELIVERIES,
                    "processor_seconds": _processor_seconds() - used,
                    "redis_mb": client.info("memory")["used_memory"] / 1e6,
                    "merged": sum(report.merged.values()),
                }
                yield Result(bench, seconds, "seconds", None, detail)
        agree({"differences": sum(Merge(rows, hooks).run(is_dry=True).merged.values())}, {"differences": 0})
        tracemalloc.start()
        Merge(rows, hooks).run()
        yield Result(bench, tracemalloc.get_traced_memory()[1] / 1e6, "MB", None, {"deliveries": DELIVERIES})
        tracemalloc.stop()


def _fill(rows: Side) -> None:
    records: list[Record] = []
    first_us = now_us() // DAY_US * DAY_US - (DAYS - 1) * DAY_US
    span_us = now_us() - 3_600_000_000 - first_us
    for number in range(DELIVERIES):
        at_us = first_us + span_us * number // DELIVERIES
        place = number % LABEL_SETS
        labels = f"01HENDPOINT{place % 50:015d}", f"invoice.{place // 50 % 3}", f"01HSOURCE{place // 150:017d}"
        records.append(DeliveryRead("01JP", ulid(at_us, number), "success", at_us + 4_534_567, *labels, at_us + 3_217))
        if number % 3 == 0:
            records.append(EventCreated("01JP", ulid(at_us, number), at_us, labels[2]))
        if at_us > now_us() - 7 * DAY_US:
            records.append(AttemptMade("01JP", ulid(at_us, number), at_us, labels[0], True, 200))
        if len(records) >= AT_ONCE:
            rows.write(records)
            records.clear()
    rows.write(records)


def _processor_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime
