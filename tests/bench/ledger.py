"""The ledger: what writing, reading and keeping it costs, each beside something known on the same Redis in one run."""

import base64
import gc
import os
import statistics
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, cast

import redis

from otel_queue.config import RedisConfig
from otel_queue.ledger.batches import MOST_RECORDS, calls
from otel_queue.ledger.contract import Rule
from otel_queue.ledger.keys import Keys
from otel_queue.ledger.reader import LedgerReader
from otel_queue.ledger.scripts import script
from otel_queue.ledger.store import LedgerStore
from otel_queue.ledger.upkeep import Upkeep
from otel_queue.ledger.writer import BufferedWriter
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, Record, StatusSet
from otel_queue.redis_client import connect
from tests.bench.agreement import agree
from tests.bench.result import Result
from tests.requirements_gate import Needs, missing
from tests.servers.redis import RedisServer, redis_program, redis_server

WRITE_BUDGET = 1 / 0.7
HINCRBYS = 20
BYTES_BUDGET = 80.0
BYTES_BUDGET_SMALL = 250.0
ROUNDS = 5
DRAWN_TWICE = 10
# What the buffered writer sends at a time.
PIPELINED_CALLS = 8
RECORDS = 12 * PIPELINED_CALLS * MOST_RECORDS
ENDPOINTS, SOURCES, EVENT_TYPES = 50, 2, 3
LABEL_SETS = ENDPOINTS * SOURCES * EVENT_TYPES
DAY_MS = 86_400_000
SETTLING_SECONDS = 120.0
# No day of a benchmark is ever too old.
RULE = Rule(track_days=10_000, attempt_days=10_000)

_TO_CROCKFORD = bytes.maketrans(b"0123456789ABCDEFGHIJKLMNOPQRSTUV", b"0123456789ABCDEFGHJKMNPQRSTVWXYZ")


def write(bench: str) -> Iterator[Result]:
    """Two rows: seconds for as many records beside redis-benchmark, and Redis's CPU time beside 20 HINCRBYs.

    After a first, untimed round, and each timed one, both sides must hold as many ids and counts. HINCRBYs are a
    yardstick and hold other things; that all records were counted is checked.
    """
    with redis_server() as server, server.client() as client:
        yield _write_rate(bench, server, client)
        yield _write_cpu(bench, server, client)


def read(bench: str) -> Iterator[Result]:
    """20,000 series after 1 % changed, by the reader that knows them, beside a reader that knows nothing.

    Before anything is timed, and after all changes, both must read the same counts.
    """
    projects, endpoints, days = 20, 500, 10
    statuses = ("processing", "success")
    with redis_server() as server:
        store = _store(server)
        now_ms = _now_ms()

        def created(project: int, endpoint: int, status: str, age_days: int) -> Record:
            at_ms = now_ms - age_days * DAY_MS
            labels = (f"endpoint-{endpoint:04d}", "invoice.paid", "source")
            return DeliveryCreated(f"project-{project:02d}", ulid(at_ms), at_ms * 1000, *labels, status=status)

        _write_all(
            store,
            (
                created(project, endpoint, status, age)
                for project in range(projects)
                for age in range(days)
                for endpoint in range(endpoints)
                for status in statuses
            ),
        )
        reader = _reader(server)
        series = sum(len(project.deliveries) for project in reader.snapshot().projects)
        assert series == projects * endpoints * len(statuses)
        _write_all(store, (created(project, e, "success", 0) for project in range(projects) for e in range(10)))
        agree(_counts(reader), _counts(_reader(server)))
        fresh_ms = [_timed(lambda: _reader(server).snapshot()) for _ in range(ROUNDS)]
        spread_ms, one_project_ms, unchanged_ms = [], [], []
        for _ in range(ROUNDS):
            # 1 % of the series, in every project and on the last day.
            _write_all(store, (created(project, e, "success", 0) for project in range(projects) for e in range(10)))
            spread_ms.append(_timed(reader.snapshot))
            _write_all(store, (created(0, endpoint, "success", 0) for endpoint in range(200)))
            one_project_ms.append(_timed(reader.snapshot))
            unchanged_ms.append(_timed(reader.snapshot))
        agree(_counts(reader), _counts(_reader(server)))
        fresh, warm = statistics.median(fresh_ms), statistics.median(spread_ms)
        detail = {
            "series": series,
            "days": days,
            "fresh_ms": fresh,
            "changed_ms": warm,
            "changed_in_one_project_ms": statistics.median(one_project_ms),
            "unchanged_ms": statistics.median(unchanged_ms),
        }
        yield Result(bench, warm / fresh, "ratio", None, detail)


def memory(bench: str) -> Iterator[Result]:
    """Bytes per tracked delivery with its event's id, one event to a delivery: a further day of known projects.

    Ids of attempts, which are kept for days and not for weeks, are not in it. There is no peer; that every id is held
    is checked.
    """
    for per_day, projects, known_days, days, budget in (
        (20, 20, 30, 30, BYTES_BUDGET_SMALL),
        (25_000, 2, 1, 1, BYTES_BUDGET),
        (500_000, 1, 1, 1, BYTES_BUDGET),
    ):
        with redis_server() as server, server.client() as client:
            store = _store(server)
            first_ms = _now_ms() // DAY_MS * DAY_MS - (known_days + days) * DAY_MS
            known = range(known_days) if per_day < 500_000 else range(0)
            ids = 2 * projects * per_day * (len(known) + days)
            for day in known:
                _write_all(store, _settled_day(projects, per_day, first_ms + day * DAY_MS))
            if not known:
                # All labels are known; what is held of the day before is in neither figure.
                _write_all(store, _settled_day(projects, 2 * LABEL_SETS, first_ms))
                ids += 2 * projects * 2 * LABEL_SETS
            before = _used_memory(client)
            for day in range(known_days, known_days + days):
                _write_all(store, _settled_day(projects, per_day, first_ms + day * DAY_MS))
            deliveries = projects * days * per_day
            value = (_used_memory(client) - before) / deliveries
            agree({"ids": _entries(client)}, {"ids": ids})
            detail = {"deliveries_a_day": per_day, "projects": projects, "deliveries": deliveries}
            yield Result(bench, value, "bytes", budget, detail)


# Writing ---------------------------------------------------------------------------------------------------------


def _write_rate(bench: str, server: RedisServer, client: redis.Redis) -> Result:
    """The sums over the three kinds of records, each written the same number of times by both sides.

    The first round is not timed: it shows that both sides hold the same.
    """
    ours: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    writer = BufferedWriter(_store(server), most_records=RECORDS, flush_at_exit=False)
    for turn in range(1 + ROUNDS):
        # A worker has few records at a time: the collector is not to walk over all of these again and again.
        gc.collect()
        kinds = _of_every_kind(RECORDS)
        gc.freeze()
        for name, records in kinds.items():
            _empty(client)
            started = time.perf_counter()
            writer.write(records)
            assert writer.flush(SETTLING_SECONDS)
            taken = time.perf_counter() - started
            held = _held(client)
            _empty(client)
            reference_taken = _redis_benchmark(server, client, name, records)
            # Some ids of redis-benchmark may be drawn twice.
            agree(held, _held(client), tolerance=DRAWN_TWICE)
            if turn:
                ours.setdefault(name, []).append(taken)
                theirs.setdefault(name, []).append(reference_taken)
        gc.unfreeze()
    writer.close(SETTLING_SECONDS)
    seconds = {name: statistics.median(taken) for name, taken in ours.items()}
    reference = {name: statistics.median(taken) for name, taken in theirs.items()}
    detail: dict[str, float] = {"records_per_call": MOST_RECORDS, "calls_per_batch": PIPELINED_CALLS}
    for name in seconds:
        detail[f"{name}_per_second"] = RECORDS / seconds[name]
        detail[f"{name}_per_second_redis_benchmark"] = RECORDS / reference[name]
    return Result(bench, sum(seconds.values()) / sum(reference.values()), "ratio", WRITE_BUDGET, detail)


def _redis_benchmark(server: RedisServer, client: redis.Redis, name: str, records: Sequence[Record]) -> float:
    """Seconds for as many records by redis-benchmark: one connection, the same call, new random ids each time."""
    program = redis_program().with_name("redis-benchmark")
    if not program.exists():
        missing(Needs.REDIS, f"{program} is missing")
    call = next(calls(records[:MOST_RECORDS], Keys()))
    client.script_load(script(name).text.decode())
    words = {"record_deliveries": 10, "record_events": 4, "record_attempts": 3}[name]
    arguments: list[str] = []
    # What an id of now begins with; a command line cannot carry a NUL.
    now = os.fsdecode((_now_ms() >> 16 | 0x01010101).to_bytes(4, "big"))
    contract: Any = client.get("oq:contract")
    for index, argument in enumerate((contract.decode(), *call.arguments[1:])):
        place = (index - 2) % words if index >= 2 else -1
        # An id of 16 bytes and its hash, both drawn anew; an attempt's field has a NUL too.
        drawn = {0: f"{now}__rand_int__", 1: "__rand_int__"}.get(place)
        arguments.append(drawn or str(argument).replace("\0", "|"))
    command = [
        *(str(program), "-h", "127.0.0.1", "-p", str(server.port), "-c", "1", "-P", str(PIPELINED_CALLS)),
        *("-n", str(len(records) // MOST_RECORDS), "-r", "2000000000", "--csv"),
        *("EVALSHA", script(name).sha.decode(), str(len(call.keys)), *(key.decode() for key in call.keys)),
        *arguments,
    ]
    said = subprocess.run(command, check=True, capture_output=True, text=True, errors="replace").stdout
    calls_per_second = float(said.splitlines()[-1].rsplit('","', 7)[1])
    return len(records) / MOST_RECORDS / calls_per_second


def _write_cpu(bench: str, server: RedisServer, client: redis.Redis) -> Result:
    """Main thread's CPU time per record over whole lifecycles, beside pipelined HINCRBYs on a hash of 300 fields."""
    store, deliveries = _store(server), RECORDS // 5
    per_record: list[float] = []
    per_hincrby: list[float] = []
    for _ in range(ROUNDS):
        _empty(client)
        lifecycle = _lifecycles(deliveries)
        before = _cpu_seconds(client)
        _write_all(store, lifecycle)
        per_record.append((_cpu_seconds(client) - before) / len(lifecycle))
        agree({"ids": _entries(client)}, {"ids": 3 * deliveries})  # an event, a delivery and an attempt each
        _empty(client)
        pipe = client.pipeline(transaction=False)
        for field in range(LABEL_SETS):
            pipe.hset("counts", f"{field}:6", 1)
        pipe.execute()
        before = _cpu_seconds(client)
        for _ in range(10):
            for number in range(4_000):
                pipe.hincrby("counts", f"{number * 7 % LABEL_SETS}:6", 1)
            pipe.execute()
        per_hincrby.append((_cpu_seconds(client) - before) / 40_000)
    record, hincrby = statistics.median(per_record), statistics.median(per_hincrby)
    detail = {"redis_us": record * 1e6, f"redis_us_{HINCRBYS}_hincrbys": hincrby * HINCRBYS * 1e6}
    return Result(f"{bench}-cpu", record / (HINCRBYS * hincrby), "ratio", 1.0, detail)


def _of_every_kind(count: int) -> dict[str, list[Record]]:
    """Records by the script that takes them: each tells of something new, with one of 300 sets of labels."""
    found: dict[str, list[Record]] = {"record_events": [], "record_deliveries": [], "record_attempts": []}
    at_ms = _now_ms()
    at_us = at_ms * 1000
    for number in range(count):
        endpoint, event_type, source = _labels(number)
        found["record_events"].append(EventCreated("project", ulid(at_ms), at_us, source))
        found["record_deliveries"].append(DeliveryCreated("project", ulid(at_ms), at_us, endpoint, event_type, source))
        found["record_attempts"].append(AttemptMade("project", ulid(at_ms), at_us, endpoint, True, "200 OK"))
    return found


def _lifecycles(deliveries: int) -> list[Record]:
    """Five records per delivery, in the order in which they happen to a few hundred deliveries at a time."""
    at_ms = _now_ms()
    at_us = at_ms * 1000
    records: list[Record] = []
    for start in range(0, deliveries, 500):
        steps: list[list[Record]] = [[], [], [], [], []]
        for number in range(start, min(start + 500, deliveries)):
            endpoint, event_type, source = _labels(number)
            delivery = ulid(at_ms)
            steps[0].append(EventCreated("project", ulid(at_ms), at_us, source))
            steps[1].append(DeliveryCreated("project", delivery, at_us, endpoint, event_type, source))
            steps[2].append(StatusSet("project", delivery, "processing", at_us + 1, endpoint, event_type))
            steps[3].append(AttemptMade("project", ulid(at_ms), at_us + 2, endpoint, True, 200))
            steps[4].append(StatusSet("project", delivery, "success", at_us + 3, endpoint, event_type))
        records += [record for step in steps for record in step]
    return records


def _settled_day(projects: int, per_day: int, day_ms: int) -> Iterator[Record]:
    """A day's deliveries and events of every project, all delivered.

    Rows are made some milliseconds after their ids, and delivered some seconds later.
    """
    for project in range(projects):
        name = f"01J{project:023d}"
        for number in range(per_day):
            endpoint, event_type, source = _labels(number)
            at_ms = day_ms + number * DAY_MS // per_day
            at_us, delivery = at_ms * 1000, ulid(at_ms)
            yield EventCreated(name, ulid(at_ms), at_us + 2_113, source)
            created_us = at_us + 3_217
            yield DeliveryCreated(
                name, delivery, created_us, endpoint, event_type, source, "scheduled", created_us=created_us
            )
            yield StatusSet(name, delivery, "success", at_us + 4_534_567)


def _labels(number: int) -> tuple[str, str, str]:
    place = number % LABEL_SETS
    return (
        f"01HENDPOINT{place % ENDPOINTS:015d}",
        f"invoice.{place // ENDPOINTS % EVENT_TYPES}",
        f"01HSOURCE{place // ENDPOINTS // EVENT_TYPES:017d}",
    )


def ulid(at_ms: int) -> str:
    """A ULID of that time; quicker than the package's own, since millions are wanted."""
    drawn = base64.b32hexencode(at_ms.to_bytes(6, "big").rjust(10, b"\0"))[6:] + base64.b32hexencode(os.urandom(10))
    return drawn.translate(_TO_CROCKFORD).decode()


# Around ----------------------------------------------------------------------------------------------------------


def _empty(client: redis.Redis) -> None:
    """Leaves nothing but the ledger's contract."""
    contract: Any = client.get("oq:contract")
    client.flushdb()
    client.set("oq:contract", contract)


def _store(server: RedisServer) -> LedgerStore:
    """A store of a ledger that has begun."""
    Upkeep(connect(RedisConfig(url=server.url))).begin(RULE)
    return LedgerStore(connect(RedisConfig(url=server.url)))


def _reader(server: RedisServer) -> LedgerReader:
    return LedgerReader(connect(RedisConfig(url=server.url)), timeout_seconds=60)


def _write_all(store: LedgerStore, records: Iterable[Record]) -> None:
    source = iter(records)
    while batch := list(islice(source, MOST_RECORDS * PIPELINED_CALLS)):
        store.write(batch, time.monotonic() + SETTLING_SECONDS)


def _timed(call: object) -> float:
    assert callable(call)
    started = time.perf_counter()
    call()
    return (time.perf_counter() - started) * 1e3


def _entries(client: redis.Redis) -> int:
    """Ids held in all nodes."""
    nodes = [key for key in client.scan_iter(count=1000) if b":2" in key and b":counts:" not in key]
    pipe = client.pipeline(transaction=False)
    for node in nodes:
        pipe.hlen(node)
    return sum(pipe.execute())


def _held(client: redis.Redis) -> Counter[str]:
    """Ids held in all nodes, and what is counted of them: attempts, events (e), deliveries by their status's number."""
    held = Counter(ids=_entries(client))
    for key in client.scan_iter(match="*:counts:*"):
        fields = cast(dict[bytes, bytes], client.hgetall(key))
        for field, count in fields.items():
            held[field.rpartition(b":")[2].decode()] += int(count)
    for key in client.scan_iter(match="*:attempts"):
        held["attempts"] += sum(map(int, client.hvals(key)))
    return held


def _counts(reader: LedgerReader) -> dict[tuple[Any, ...], int]:
    """All counts of a reading, by project, kind and what they are of."""
    return {
        (project.project, kind, of): count
        for project in reader.snapshot().projects
        for kind in ("deliveries", "events", "attempts")
        for of, count in getattr(project, kind).items()
    }


def _cpu_seconds(client: redis.Redis) -> float:
    cpu = client.info("cpu")
    return float(cpu["used_cpu_sys_main_thread"]) + float(cpu["used_cpu_user_main_thread"])


def _used_memory(client: redis.Redis) -> int:
    """After lazy frees; the buffers of connections are small beside what is measured."""
    return int(client.info("memory")["used_memory"])


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
