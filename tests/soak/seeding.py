"""A large database is seeded while workers record: killed half way, run again, and the ledger says what it says."""

import json
import os
import random
import re
import subprocess
import sys
import threading
import time
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from otel_queue.lifecycle import DeliveryCreated, EventCreated, Record, StatusSet
from tests.ledger.ledgers import DAY_US, Ledger, assert_every_key_has_a_life, now_us, ulid
from tests.postgres.gateway import DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS, HERE, Gateway
from tests.seeding.seeds import AGE_TOLERANCE_SECONDS, corrected
from tests.seeding.tables import at
from tests.servers.postgres import postgres_server
from tests.servers.redis import redis_server

PROJECTS: Final = 20
DAYS: Final = 40
TRACKED_DAYS: Final = 29
TICK_SECONDS: Final = 0.1
SECOND_US: Final = 1_000_000
STATUSES: Final = (*["Success"] * 6, "Failure", "Retry", "Scheduled", "Processing")
_SETTINGS: Final = ("shared_buffers=256MB", "max_wal_size=4GB")
_READ: Final = re.compile(r": (\d+) rows of about (\d+) read")


@dataclass(frozen=True)
class Plan:
    deliveries: int = 1_000_000
    events: int = 300_000
    rate: int = 2_000
    seed: int = 1


@dataclass
class Result:
    """Figures, and the series that differ when all is at rest."""

    figures: dict[str, object] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def rows(self) -> list[tuple[str, object]]:
        """The result as a table."""
        return [*self.figures.items(), ("series that differ from the database", len(self.wrong))]


def run(plan: Plan) -> Result:
    """Takes some minutes; the servers are its own."""
    result = Result()
    with postgres_server(settings=_SETTINGS) as server, redis_server() as redis:
        with server.connect() as connection:
            connection.execute((HERE / "schema.sql").read_bytes())
        with closing(Gateway(server, server.database)) as gateway, closing(Ledger(redis.url)) as ledger:
            tracked = fill(gateway, plan)
            gateway.execute("VACUUM ANALYZE")
            _run_through(gateway, ledger, tracked, plan, result)
            with redis.client() as client:
                memory: Any = client.info("memory")
                result.figures["Redis memory, MB"] = round(memory["used_memory"] / 1e6, 1)
        assert_every_key_has_a_life(redis)
    return result


def _run_through(gateway: Gateway, ledger: Ledger, tracked: list[tuple[str, str]], plan: Plan, result: Result) -> None:
    figures = result.figures
    worker = Worker(gateway, ledger, tracked, plan)
    worker.start()
    killed_at = _seed_until_half(gateway, ledger)
    figures["rows read when it was killed"] = killed_at
    told = _seed(gateway, ledger)
    figures["rows read by the next run"] = sum(told["rows"].values())
    figures["rows a second beside the worker"] = round(sum(told["rows"].values()) / told["seconds"])
    figures["seconds beside the worker"] = told["seconds"]
    worker.stop()
    figures["records of the worker"] = worker.records
    figures["of these a second"] = round(worker.records / worker.seconds)
    _compare(gateway, ledger, result)
    before = _database_seconds(gateway)
    again = _seed(gateway, ledger, "--pause", "0")
    figures["seconds of a run at rest without pauses"] = again["seconds"]
    figures["rows a second of it"] = round(sum(again["rows"].values()) / again["seconds"])
    figures["database seconds of it"] = round(_database_seconds(gateway) - before, 1)
    figures["records that it changed"] = again["changed"]
    _compare(gateway, ledger, result)


def _compare(gateway: Gateway, ledger: Ledger, result: Result) -> None:
    ours, theirs = ledger.families(), corrected(gateway)
    for name in (EVENTS, DELIVERIES, EVENT_BACKLOG, DELIVERY_BACKLOG):
        tolerance = AGE_TOLERANCE_SECONDS if name in (EVENT_BACKLOG, DELIVERY_BACKLOG) else 0
        for labels in sorted(ours[name].keys() | theirs[name].keys()):
            mine, other = ours[name].get(labels), theirs[name].get(labels)
            if mine is None or other is None or abs(mine - other) > tolerance:
                result.wrong.append(f"{name}{labels}: ledger {mine}, database {other}")
    result.wrong += [str(difference) for difference in ledger.differences()]
    result.figures["series compared"] = sum(len(found) for found in theirs.values())


def fill(gateway: Gateway, plan: Plan) -> list[tuple[str, str]]:
    """Rows in the order of time, some deliveries for each event; returns ids and projects of those to be changed."""
    chance = random.Random(plan.seed)
    now = now_us() - 600 * SECOND_US
    times = sorted(now - chance.randrange(DAYS * DAY_US) for _ in range(plan.events))
    ids = [ulid(time_us, chance.getrandbits(80)) for time_us in times]
    for number in range(PROJECTS):
        gateway.execute("INSERT INTO convoy.projects VALUES (%s, %s, 'outgoing', 'O')", _project(number), f"N{number}")
    gateway.copy(
        "COPY convoy.events (id, event_type, project_id, source_id, status, created_at) FROM STDIN",
        (
            (id_, "paid", _project(number), (None, "S1", "S2")[number % 3], "Success", at(time_us))
            for number, (id_, time_us) in enumerate(zip(ids, times, strict=True))
        ),
    )
    tracked: list[tuple[str, str]] = []

    def deliveries() -> Any:
        for number in range(plan.deliveries):
            event = number * plan.events // plan.deliveries
            created = times[event] + chance.randrange(SECOND_US)
            id_ = ulid(created, chance.getrandbits(80))
            if created > now - TRACKED_DAYS * DAY_US and number % 5 == 0:
                tracked.append((id_, _project(event)))
            yield (
                id_, ids[event], chance.choice(STATUSES), _project(event), f"endpoint-{number % 12}", "paid",
                at(created), at(created + 20 * SECOND_US),
            )  # fmt: skip

    gateway.copy(
        "COPY convoy.event_deliveries"
        " (id, event_id, status, project_id, endpoint_id, event_type, created_at, updated_at) FROM STDIN",
        deliveries(),
    )
    return tracked


def _project(number: int) -> str:
    return f"project-{number % PROJECTS}"


class Worker:
    """Creates deliveries and moves others on, in the database first and then in the ledger, at a rate."""

    def __init__(self, gateway: Gateway, ledger: Ledger, tracked: list[tuple[str, str]], plan: Plan) -> None:
        self._gateway = Gateway(gateway.server, gateway.database, is_new=False)
        self._ledger = ledger
        self._tracked = tracked
        self._chance = random.Random(plan.seed + 1)
        # A creation is two records, of an event and a delivery.
        self._at_once = max(round(plan.rate * TICK_SECONDS / 4), 1)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._error: BaseException | None = None
        self.records = 0
        self.seconds = 0.0

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """What it has written is recorded."""
        self._end.set()
        self._thread.join()
        self._gateway.close()
        if self._error is not None:
            raise self._error

    def _run(self) -> None:
        began = time.monotonic()
        ticks = 0
        try:
            while not self._end.wait(max(began + ticks * TICK_SECONDS - time.monotonic(), 0)):
                records = [*self._create(), *self._move_on()]
                self._ledger.write(*records)
                self.records += len(records)
                ticks += 1
        except BaseException as error:
            self._error = error
        self.seconds = time.monotonic() - began

    def _create(self) -> list[Record]:
        made: list[Record] = []
        for _ in range(self._at_once):
            event, delivery = (ulid(now_us(), self._chance.getrandbits(80)) for _ in range(2))
            project = _project(self._chance.randrange(PROJECTS))
            made += [
                EventCreated(project, event, now_us(), "S9"),
                DeliveryCreated(project, delivery, now_us(), "endpoint-1", "paid", "S9"),
            ]
        events = [record for record in made if isinstance(record, EventCreated)]
        deliveries = [record for record in made if isinstance(record, DeliveryCreated)]
        ids, projects = [record.event_id for record in events], [record.project for record in events]
        self._gateway.execute(
            "INSERT INTO convoy.events (id, event_type, project_id, source_id, status)"
            " SELECT id, 'paid', project, 'S9', 'Success' FROM unnest(%s::text[], %s::text[]) AS new (id, project)",
            ids, projects,
        )  # fmt: skip
        self._gateway.execute(
            "INSERT INTO convoy.event_deliveries (id, event_id, status, project_id, endpoint_id, event_type)"
            " SELECT id, event, 'Scheduled', project, 'endpoint-1', 'paid'"
            " FROM unnest(%s::text[], %s::text[], %s::text[]) AS new (id, event, project)",
            [record.delivery_id for record in deliveries], ids, projects,
        )  # fmt: skip
        return made

    def _move_on(self) -> list[Record]:
        chosen = dict(self._chance.sample(self._tracked, min(2 * self._at_once, len(self._tracked))))
        statuses = [self._chance.choice(STATUSES) for _ in chosen]
        moved = self._gateway.execute(
            "UPDATE convoy.event_deliveries d SET status = new.status, updated_at = clock_timestamp()"
            " FROM unnest(%s::text[], %s::text[]) AS new (id, status) WHERE d.id = new.id"
            " RETURNING d.id, d.status, (extract(epoch FROM d.updated_at) * 1000000)::bigint",
            list(chosen), statuses,
        )  # fmt: skip
        return [StatusSet(chosen[id_], id_, status, updated_us) for id_, status, updated_us in moved]


def _command(gateway: Gateway, ledger: Ledger, *arguments: str) -> "subprocess.Popen[str]":
    program = str(Path(sys.executable).parent / "otel-queue")
    return subprocess.Popen(
        [program, "seed", "--redis-url", ledger.url, "--json", *arguments],
        env=os.environ | {"OTEL_QUEUE_POSTGRES_DSN": gateway.dsn.reveal()},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def _seed_until_half(gateway: Gateway, ledger: Ledger) -> int:
    """Kills it when its log says that half of the rows are read; what the log said."""
    with _command(gateway, ledger) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if (found := _READ.search(line)) and int(found[1]) * 2 >= int(found[2]):
                process.kill()
                return int(found[1])
    raise AssertionError("it came to its end before it said that it was half way: take more rows")


def _seed(gateway: Gateway, ledger: Ledger, *arguments: str) -> dict[str, Any]:
    with _command(gateway, ledger, *arguments) as process:
        out, err = process.communicate()
        assert process.returncode == 0, out + err
    told: dict[str, Any] = json.loads(out)
    return told


def _database_seconds(gateway: Gateway) -> float:
    """Time that sessions which have ended spent in statements."""
    gateway.execute("SELECT pg_stat_clear_snapshot()")
    [(milliseconds,)] = gateway.execute("SELECT active_time FROM pg_stat_database WHERE datname = current_database()")
    return float(milliseconds) / 1000
