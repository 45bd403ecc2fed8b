"""The whole pipeline under load for an hour with a fault every minute: what is confirmed is counted, nothing grows."""

import contextlib
import json
import math
import random
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.e2e.gateways import GATEWAY
from tests.faults.drill import fill
from tests.ledger.ledgers import Ledger, assert_every_key_has_a_life, now_us
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, EVENTS
from tests.servers.collector import CollectorServer, collector
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.postgres import PostgresServer, postgres_server
from tests.servers.process import temporary_directory, wait_until
from tests.servers.redis import redis_server
from tests.servers.redis_sentinel import MASTER_NAME, QUORUM, Sentinels, redis_sentinel
from tests.soak.exactness import proxy_process
from tests.soak.whole.faults import Scene, break_things
from tests.soak.whole.load import Book, LaneProcess, Producer
from tests.soak.whole.rows import Rows, make_tables
from tests.soak.whole.tasks import LANES, Schedule, mean_records
from tests.soak.whole.verdict import Verdict
from tests.soak.whole.watch import BUDGET_SECONDS, STALENESS_SECONDS, Sampler, Vitals, Watcher

# The first lives as long as the run.
EXPORTERS: Final = ("exporter", "exporter that is killed")
FAULT_SECONDS: Final = 60.0
QUIET_SECONDS: Final = 10.0
DOWN_AFTER_MS: Final = 2_000
DRAIN_SECONDS: Final = 300.0
SHADOW_SECONDS: Final = 120.0
DRIFT: Final = "otel_queue_shadow_drift"
PUSH_MILLISECONDS: Final = 5_000

# Shares of the time under load in which resident memory and the rest are looked at first and last.
FIRST, LAST = (0.25, 0.35), (0.9, 1.0)
MOST_GROWTH: Final = 0.05
# Growth is told from the noise of a start only over a long time.
JUDGED_FROM_MINUTES: Final = 30
# Descriptors or threads. In a run of minutes a process may open late what it will keep (to further Sentinels, to the
# Collector); one more for each fault exceeds this too.
MOST_MORE: Final = 3
MOST_MORE_SOON: Final = 8
LEAST_LOAD: Final = 0.95
MOST_SHOWN: Final = 20

CONFIG: Final = f"""
[redis]
connect_timeout_seconds = 1.0

[queue]
timeout_seconds = 2.0
max_staleness_seconds = 10.0

[domain]
source = "ledger"
shadow = "postgres"

[ledger]
url = "{{ledger}}"
timeout_seconds = 3.0
max_staleness_seconds = {STALENESS_SECONDS}

[postgres]
interval_seconds = 30

[server]
scrape_budget_seconds = {BUDGET_SECONDS}
"""


@dataclass(frozen=True)
class Plan:
    minutes: float
    seed: int
    rate: int = 600
    json: Path | None = None

    @property
    def fault_seconds(self) -> float:
        """Every minute; in a short run so often that each kind comes once."""
        return min(FAULT_SECONDS, self.minutes * 60 / 18)


@dataclass
class Result:
    """What happened, and `broken`: each bound that was not kept."""

    plan: Plan
    figures: dict[str, Any] = field(default_factory=dict)
    broken: list[str] = field(default_factory=list)

    def require(self, holds: bool, what: str) -> None:
        if not holds:
            self.broken.append(what)

    def document(self) -> dict[str, Any]:
        """For a program."""
        return {**self.figures, "broken": self.broken}

    def rows(self) -> list[tuple[str, object]]:
        """For a person; what has parts has a line for each."""
        found: list[tuple[str, object]] = []
        for name, value in self.figures.items():
            if isinstance(value, Mapping):
                found += [(f"{name}: {part}", each) for part, each in value.items()]
            else:
                found.append((name, value))
        return found


def say(line: str) -> None:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()


def run(plan: Plan) -> Result:
    """Starts everything, loads it, breaks it, and looks at what is left."""
    result = Result(plan)
    with contextlib.ExitStack() as stack:
        Whole(plan, result, stack).run()
    if plan.json is not None:
        plan.json.write_text(json.dumps(result.document(), indent=2) + "\n")
    return result


@contextlib.contextmanager
def durable_queues() -> Iterator[Sentinels]:
    """A Sentinel pair of which each keeps what it has when it is killed; a queue with known tasks is in it."""
    with redis_sentinel() as queues:
        for server in (queues.master, queues.replica):
            with server.client() as client:
                client.config_set("appendonly", "yes")
                client.config_rewrite()
        for sentinel in queues.sentinels[:QUORUM]:
            # A machine at work takes longer to answer than the pair of a single test.
            with sentinel.client() as client:
                client.execute_command("SENTINEL", "SET", MASTER_NAME, "down-after-milliseconds", DOWN_AFTER_MS)
        with queues.client() as client:
            fill(client)
            client.wait(1, 5_000)
        yield queues


class Whole:
    """Every part, and the steps of a run."""

    def __init__(self, plan: Plan, result: Result, stack: contextlib.ExitStack) -> None:
        self.plan = plan
        self.result = result
        chance = random.Random(plan.seed)
        self.ledger = stack.enter_context(redis_server(args=["--appendonly", "yes", "--appendfsync", "always"]))
        port, tell_proxy = stack.enter_context(proxy_process(self.ledger.port))
        self.queues = stack.enter_context(durable_queues())
        self.database: PostgresServer = stack.enter_context(postgres_server())
        make_tables(self.database)
        self.sink: CollectorServer = stack.enter_context(collector(GATEWAY))
        Ledger(self.ledger.url).close()
        self.book = Book()
        ways = (f"redis://127.0.0.1:{port}/0", self.ledger.url)
        self.served = [
            stack.enter_context(self._serve(name.replace(" ", "-"), way))
            for name, way in zip(EXPORTERS, ways, strict=True)
        ]
        self.watchers = [
            Watcher(name, served, self.book, say) for name, served in zip(EXPORTERS, self.served, strict=True)
        ]
        self.schedule = Schedule(plan.seed, now_us() + 2_000_000, plan.rate / mean_records(plan.seed))
        logs = stack.enter_context(temporary_directory())
        self.workers = [
            LaneProcess(
                lane, self.queues.url, ways[turn % 2], plan.seed, self._otlp(lane.name), self.book,
                logs / f"{lane.name}.log",
            )
            for turn, lane in enumerate(LANES)
        ]  # fmt: skip
        self.producer = Producer(self.queues.url, self.schedule, self.book)
        self.rows = Rows(self.database, self.schedule, self.book)
        lasting: dict[str, Callable[[], int]] = {"exporter": lambda: self.served[0].process.pid}
        for worker in self.workers:
            if worker.lane.is_long_lived:
                lasting[f"worker ({worker.lane.writes})"] = lambda worker=worker: worker.pid  # type: ignore[misc]
        self.sampler = Sampler(lasting)
        self.scene = Scene(
            self.ledger, self.queues, tell_proxy, self.workers, self.served[1], self.watchers[1], self.sink,
            self.database, chance, say,
        )  # fmt: skip

    def _otlp(self, name: str) -> dict[str, str]:
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.sink.http_endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_METRIC_EXPORT_INTERVAL": str(PUSH_MILLISECONDS),
            "OTEL_SERVICE_NAME": "soak",
            # The same after a start anew.
            "OTEL_RESOURCE_ATTRIBUTES": f"service.instance.id={name}",
        }

    def _serve(self, name: str, ledger: str) -> contextlib.AbstractContextManager[ServeProcess]:
        environment = {**self._otlp(name), "OTEL_QUEUE_POSTGRES_DSN": self.database.dsn()}
        return serve(self.queues.url, config=CONFIG.format(ledger=ledger), environment=environment)

    def run(self) -> None:
        for worker in self.workers:
            worker.start()
        looking: list[Producer | Rows | Sampler | Watcher] = [self.producer, self.rows, self.sampler, *self.watchers]
        for each in looking:
            each.start()
        try:
            self._load()
            self._drain()
            with contextlib.closing(Verdict(self.ledger.url, self.schedule, self.book.told)) as verdict:
                self._compare(verdict)
                self._look_at_exports(verdict.attempts())
        finally:
            for each in reversed(looking):
                each.stop()
            ends = [worker.end() for worker in self.workers]
        for worker, code in zip(self.workers, ends, strict=True):
            said = worker.log.read_text(errors="replace")[-2_000:]
            self.result.require(code == 0, f"worker {worker.lane.name}: exit code {code}\n{said}")
        self._tell_of_watchers()
        with contextlib.suppress(AssertionError):
            assert_every_key_has_a_life(self.ledger)
            return
        self.result.broken.append("the ledger has a key without a life")

    def _load(self) -> None:
        plan, result = self.plan, self.result
        begin = time.monotonic()
        end = begin + plan.minutes * 60
        bad = break_things(self.scene, end - QUIET_SECONDS, plan.fault_seconds)
        wait_until(lambda: time.monotonic() >= end, within=2 * FAULT_SECONDS, what="the time is over")
        self.producer.finish(now_us())
        done = sum(len(self.schedule.task(number).calls) for number in set(self.book.confirmed))
        seconds = time.monotonic() - begin
        result.figures |= {
            "seed": plan.seed,
            "minutes": plan.minutes,
            "records a second asked": plan.rate,
            "records a second done": round(done / seconds, 1),
            "faults survived": dict(sorted(self.scene.survived.items())),
            "faults survived, all": sum(self.scene.survived.values()),
        }
        for fault in bad:
            result.require(False, f"not survived: {fault}")
        result.require(done / seconds >= LEAST_LOAD * plan.rate, "the load was not held")
        for name, vitals in self.sampler.vitals.items():
            self._judge_vitals(name, vitals, begin, end - begin)

    def _judge_vitals(self, name: str, vitals: Vitals, begin: float, seconds: float) -> None:
        first, last = (
            {
                what: vitals.median(what, begin + low * seconds, begin + high * seconds)
                for what in ("memory", "descriptors", "threads")
            }
            for low, high in (FIRST, LAST)
        )
        growth = last["memory"] / first["memory"] - 1
        self.result.figures[name] = {
            "resident MiB, first": round(first["memory"] / 1024, 1),
            "resident MiB, last": round(last["memory"] / 1024, 1),
            "growth, %": round(100 * growth, 1),
            "descriptors, first": first["descriptors"],
            "descriptors, last": last["descriptors"],
            "threads, first": first["threads"],
            "threads, last": last["threads"],
        }
        is_long = self.plan.minutes >= JUDGED_FROM_MINUTES
        if is_long:
            self.result.require(growth <= MOST_GROWTH, f"{name} grew by {growth:.1%}")
        most = MOST_MORE if is_long else MOST_MORE_SOON
        for what in ("descriptors", "threads"):
            more = last[what] - first[what]
            self.result.require(not math.isnan(more) and more <= most, f"{name} has {more:g} more {what}")

    def _drain(self) -> None:
        """Every task is handled, nothing is queued, and no queue has a task left."""

        def is_drained() -> bool:
            assert self.producer.error is None, self.producer.error
            return self.producer.is_done and self.book.is_settled and not any(self.producer.left().values())

        began = time.monotonic()
        try:
            wait_until(is_drained, within=DRAIN_SECONDS, what="all queues are drained")
        except AssertionError as error:
            self.result.require(False, f"{error}: {self.producer.left()}")
        self.result.figures |= {
            "tasks": self.book.told,
            "tasks confirmed": len(self.book.confirmed),
            "tasks that failed and ran again": self.book.again,
            "tasks enqueued again": self.book.enqueued_again,
            "tasks handled again after they were confirmed": self.book.handled_again,
            "seconds until drained": round(time.monotonic() - began, 1),
        }

    def _compare(self, verdict: Verdict) -> None:
        """What was confirmed has to be there; then what may be lost is told again, and everything has to be."""
        result, may_be_lost = self.result, sorted(self.book.may_be_lost)
        wrong = verdict.wrong(exact_only=True)
        missing, may_miss = verdict.missing(), verdict.unheld(may_be_lost)
        result.figures |= {
            "records tried": verdict.records(),
            "confirmed records lost": missing - may_miss,
            "buffered tasks in killed workers": len(may_be_lost),
            "of their records lost": may_miss,
        }
        result.require(missing == may_miss, f"{missing - may_miss} confirmed records are lost")
        for number in may_be_lost:
            self.producer.send(self.schedule.task(number))
        wait_until(lambda: not self.book.may_be_lost, within=DRAIN_SECONDS, what="what was lost is told again")
        wrong += verdict.wrong() + verdict.differences()
        with self.ledger.client() as client:
            used = client.info("memory")["used_memory"]
        result.figures |= {
            "ledger's memory, MiB": round(used / 2**20, 1),
            "series compared": verdict.series,
            "series that differ from the oracle": len(wrong),
        }
        result.broken += wrong[:MOST_SHOWN]

    def _look_at_exports(self, attempts: float) -> None:
        """At rest every way out shows what the ledger has: both exporters pulled, and what they pushed."""

        def agree() -> bool:
            pulled = [sum(served.scrape().values(ATTEMPTS)) for served in self.served]
            return pulled == [attempts] * 2 and sum(self.sink.page().values(ATTEMPTS)) == 2 * attempts

        try:
            wait_until(agree, within=60, what="both exporters and the Collector show the ledger's attempts")
        except AssertionError as error:
            pulled = [sum(served.scrape().values(ATTEMPTS)) for served in self.served]
            pushed = sum(self.sink.page().values(ATTEMPTS))
            self.result.require(False, f"{error}: ledger {attempts}, pulled {pulled}, pushed {pushed}")
        self._look_at_shadow()
        scrape = self.served[0].scrape()
        self.result.figures["duplicates suppressed"] = {
            kind: sum(scrape.values("otel_queue_duplicates_suppressed_total", record=kind))
            for kind in ("event", "delivery", "attempt")
        }
        odd = sum(sum(scrape.values(f"otel_queue_{what}_records_total")) for what in ("clamped", "late"))
        self.result.figures["records clamped or late"] = odd
        self.result.require(odd == 0, "the clocks are not that far off, and no day is over")

    def _look_at_shadow(self) -> None:
        """At rest the database has what the ledger has, and both exporters say so."""

        def drifts(served: ServeProcess) -> list[float]:
            scrape = served.scrape()
            return [drift for name in (EVENTS, DELIVERIES) for drift in scrape.values(DRIFT, metric=name)]

        def agree() -> bool:
            return not self.book.without_rows and all(drifts(served) == [0.0, 0.0] for served in self.served)

        try:
            wait_until(agree, within=SHADOW_SECONDS, what="the shadow sees no drift")
        except AssertionError as error:
            self.result.require(False, f"{error}: {[drifts(served) for served in self.served]}")
        self.result.figures["drift from the database at rest"] = max(max(map(drifts, self.served)))

    def _tell_of_watchers(self) -> None:
        for each in self.watchers:
            self.result.figures[f"{each.name}, scrapes"] = {
                "answered": each.scrapes,
                "not answered": each.unanswered,
                "with the domain": each.with_domain,
                "with the queues": each.with_queues,
                "longest seconds": round(each.longest_seconds, 2),
                "wrong": len(each.wrong),
            }
            self.result.broken += each.wrong[:MOST_SHOWN]
        self.result.broken += self.sampler.gone[:MOST_SHOWN]
