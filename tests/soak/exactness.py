"""Many records through killed writers, a killed Redis and a network that is cut, and each is counted once."""

import contextlib
import pickle
import queue
import random
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import IO, Final

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.ledger.reader import LedgerReader, LedgerSnapshot
from otel_queue.lifecycle import Record
from otel_queue.redis_client import connect
from tests.ledger.ledgers import Ledger, assert_every_key_has_a_life, families_of, now_us, plain
from tests.ledger.oracle import Families, Oracle
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer
from tests.servers.redis import redis_server as new_redis_server
from tests.soak.lifecycle import stream

WRITERS: Final = 8
IN_HAND: Final = 3  # tasks that a writer is given before it has answered for the first
WRITE_AT_ONCE: Final = 2_000


@dataclass(frozen=True)
class Plan:
    records: int
    seed: int
    writer: str = "committed"
    kills: int = 50
    redis_kills: int = 10
    cuts: int = 20


@dataclass
class Result:
    """What happened; `lost` are records that were acknowledged and not in the ledger, `wrong` are wrong series."""

    plan: Plan
    tasks: int = 0
    redelivered: int = 0
    may_be_lost: int = 0
    lost: int = 0
    missing: int = 0
    wrong: list[str] = field(default_factory=list)
    series: int = 0
    seconds: float = 0.0

    def rows(self) -> list[tuple[str, object]]:
        """The result as a table."""
        return [
            ("seed", self.plan.seed),
            ("writer", self.plan.writer),
            ("records", self.plan.records),
            ("tasks", self.tasks),
            ("writers killed", self.plan.kills),
            ("Redis killed", self.plan.redis_kills),
            ("network cut", self.plan.cuts),
            ("tasks delivered again", self.redelivered),
            ("records queued in killed writers", self.may_be_lost),
            ("of these lost", self.lost),
            ("others lost", self.missing),
            ("series compared", self.series),
            ("series that differ from the oracle", len(self.wrong)),
            ("seconds", round(self.seconds, 1)),
        ]


Task = tuple[int, list[Record]]


class Deliveries:
    """The queue that the writers work for: what is not acknowledged is delivered again."""

    def __init__(self, tasks: Sequence[Task]) -> None:
        self._waiting: queue.SimpleQueue[Task] = queue.SimpleQueue()
        for task in tasks:
            self._waiting.put(task)
        self._lock = threading.Lock()
        self._open = len(tasks)
        self.acknowledged = 0
        self.redelivered = 0
        self.may_be_lost: dict[int, list[Record]] = {}

    @property
    def is_done(self) -> bool:
        return self._open == 0

    def take(self) -> Task | None:
        with contextlib.suppress(queue.Empty):
            return self._waiting.get_nowait()
        return None

    def acknowledge(self) -> None:
        with self._lock:
            self._open -= 1
            self.acknowledged += 1

    def give_back(self, tasks: Sequence[Task]) -> None:
        with self._lock:
            self.redelivered += len(tasks)
        for task in tasks:
            self._waiting.put(task)

    def lose(self, tasks: Sequence[Task]) -> None:
        """These were acknowledged, and their writer died before it said that they are written."""
        with self._lock:
            self.may_be_lost.update(tasks)


class WriterProcess:
    """Keeps one writer process busy, and starts another when it was killed."""

    def __init__(self, url: str, kind: str, deliveries: Deliveries) -> None:
        self._command = [sys.executable, "-m", "tests.soak.writer_process", url, kind]
        self._deliveries = deliveries
        self._process: subprocess.Popen[bytes] | None = None
        self.error: BaseException | None = None
        self.thread = threading.Thread(target=self._run)
        self.thread.start()

    def kill(self) -> bool:
        """Whether there was one to kill, which there is not while the next one starts."""
        process = self._process
        if process is None or process.poll() is not None:
            return False
        process.kill()
        return True

    def _run(self) -> None:
        try:
            while not self._deliveries.is_done:
                self._serve()
        except BaseException as error:
            self.error = error
            raise

    def _serve(self) -> None:
        """Until the process dies or everything is acknowledged."""
        in_hand: dict[int, list[Record]] = {}
        queued: dict[int, list[Record]] = {}
        with subprocess.Popen(self._command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
            assert process.stdin is not None
            assert process.stdout is not None
            self._process = process
            try:
                self._exchange(process.stdin, process.stdout, in_hand, queued)
                process.stdin.close()
                if b"flushed 0\n" in process.stdout.readlines():
                    queued.clear()
            except (BrokenPipeError, EOFError):
                pass  # it was killed
            finally:
                self._process = None
                process.kill()
                with contextlib.suppress(BrokenPipeError):
                    process.stdin.close()
        self._deliveries.give_back(list(in_hand.items()))
        self._deliveries.lose(list(queued.items()))

    def _exchange(
        self, tasks: IO[bytes], answers: IO[bytes], in_hand: dict[int, list[Record]], queued: dict[int, list[Record]]
    ) -> None:
        while True:
            while len(in_hand) < IN_HAND and (task := self._deliveries.take()):
                in_hand[task[0]] = task[1]
                pickle.dump(task, tasks)
                tasks.flush()
            if not in_hand:
                if self._deliveries.is_done:
                    return
                threading.Event().wait(0.01)  # others may give tasks back
                continue
            line = answers.readline().decode()
            if not line.endswith("\n"):
                raise EOFError
            word, _, number = line.strip().partition(" ")
            assert number.isdigit(), line
            if word == "flushed":
                queued.clear()
                continue
            records = in_hand.pop(int(number))
            if word == "failed":
                self._deliveries.give_back([(int(number), records)])
                continue
            self._deliveries.acknowledge()
            if word == "queued":
                queued[int(number)] = records


@contextlib.contextmanager
def proxy_process(port: int) -> Iterator[tuple[int, Callable[[str], None]]]:
    """Its port, and what has it do something; see proxy_process.py."""
    command = [sys.executable, "-m", "tests.soak.proxy_process", str(port)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        stdin, stdout = process.stdin, process.stdout

        def tell(line: str) -> None:
            stdin.write(line + "\n")
            stdin.flush()
            assert stdout.readline() == "done\n"

        try:
            yield int(stdout.readline()), tell
        finally:
            process.kill()


def run(plan: Plan) -> Result:
    started = time.monotonic()
    chance = random.Random(plan.seed)
    records = stream(plan.seed, plan.records, now_us())
    tasks = _tasks(chance, records)
    result = Result(plan, tasks=len(tasks))
    with (
        new_redis_server(args=["--appendonly", "yes", "--appendfsync", "always"]) as server,
        proxy_process(server.port) as (proxy_port, tell_proxy),
    ):
        Ledger(server.url).close()
        with _watching(server.url) as watched:
            deliveries = _work(plan, chance, tasks, server, proxy_port, partial(tell_proxy, "cut"))
            result.redelivered = deliveries.redelivered
            _compare(result, records, deliveries, server, watched)
        assert_every_key_has_a_life(server)
    result.seconds = time.monotonic() - started
    return result


def _tasks(chance: random.Random, records: Sequence[Record]) -> list[Task]:
    """A fan-out tells of many deliveries at once, a retry of one."""
    tasks: list[Task] = []
    first = 0
    while first < len(records):
        size = chance.choice((1, 3, 5, 20, 60))
        tasks.append((len(tasks), list(records[first : first + size])))
        first += size
    return tasks


def _work(
    plan: Plan,
    chance: random.Random,
    tasks: Sequence[Task],
    server: RedisServer,
    proxy_port: int,
    cut: Callable[[], None],
) -> Deliveries:
    deliveries = Deliveries(tasks)
    urls = (server.url, f"redis://127.0.0.1:{proxy_port}/0")
    writers = [WriterProcess(urls[number % 2], plan.writer, deliveries) for number in range(WRITERS)]

    def kill_writer() -> None:
        wait_until(lambda: chance.choice(writers).kill(), what="a writer runs")

    def has_come_to(due: int) -> bool:
        return deliveries.acknowledged >= due or any(writer.error for writer in writers)

    faults: list[Callable[[], None]] = [
        *[kill_writer] * plan.kills,
        *[server.restart] * plan.redis_kills,
        *[cut] * plan.cuts,
    ]
    chance.shuffle(faults)
    for number, fault in enumerate(faults, start=1):
        due = number * len(tasks) // (len(faults) + 1)
        wait_until(partial(has_come_to, due), within=600, what=f"{due} tasks are acknowledged")
        fault()
    for writer in writers:
        writer.thread.join()
        assert writer.error is None, writer.error
    return deliveries


@contextlib.contextmanager
def _watching(url: str) -> Iterator[Callable[[], LedgerSnapshot]]:
    """A reader that reads all the time, whatever happens; its last snapshot must be right all the same."""
    link = connect(RedisConfig(url=url))
    reader = LedgerReader(link)
    stop = threading.Event()

    def watch() -> None:
        while not stop.wait(0.2):
            with contextlib.suppress(ReadError):
                reader.snapshot()

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield reader.snapshot
    finally:
        stop.set()
        thread.join()
        link.close()


def _compare(
    result: Result,
    records: Sequence[Record],
    deliveries: Deliveries,
    server: RedisServer,
    watched: Callable[[], LedgerSnapshot],
) -> None:
    ledger = Ledger(server.url)
    lost = [record for task in deliveries.may_be_lost.values() for record in task]
    result.may_be_lost = len(lost)
    if lost:
        # What is written already changes nothing: so what changes something was missing.
        may_be_lost = set(map(id, lost))
        result.missing = _write(ledger, [record for record in records if id(record) not in may_be_lost])
        result.lost = _write(ledger, lost)
    snapshot = ledger.snapshot()
    oracle = _oracle(records, snapshot.time)
    result.series = sum(map(len, oracle.values()))
    result.wrong = _wrong("a new reader", snapshot, oracle)
    later = watched()
    result.wrong += _wrong("the reader that watched", later, later_by(oracle, later.time - snapshot.time))
    result.wrong += [f"check: {difference}" for difference in ledger.differences()]
    if result.wrong and not lost:
        # Says which it was: records that were lost though nothing might be, or all of them counted wrongly.
        result.missing = _write(ledger, records)
    ledger.close()


def _wrong(reader: str, snapshot: LedgerSnapshot, oracle: Families) -> list[str]:
    unread = [f"{reader}: a project cannot be read, {reason} ({count})" for reason, count in snapshot.failures.items()]
    return unread + wrong_series(reader, families_of(snapshot), oracle)


def _write(ledger: Ledger, records: Sequence[Record]) -> int:
    """Writes the records once more; how many changed something."""
    return sum(
        ledger.write(*records[first : first + WRITE_AT_ONCE]).changed for first in range(0, len(records), WRITE_AT_ONCE)
    )


def _oracle(records: Sequence[Record], now: float) -> Families:
    """Project by project, so that not all records are held twice."""
    projects: dict[str, list[Record]] = {}
    for record in records:
        projects.setdefault(record.project, []).append(record)
    found: Families = {}
    for told in projects.values():
        oracle = Oracle(now)
        for record in told:
            oracle.take(plain(record))
        for name, samples in oracle.families().items():
            found.setdefault(name, {}).update(samples)
    return found


def later_by(families: Families, seconds: float) -> Families:
    """The same at a later time: what waits has waited longer."""
    return {
        name: {
            labels: value + seconds if name.endswith("_seconds") and value else value
            for labels, value in samples.items()
        }
        for name, samples in families.items()
    }


def wrong_series(reader: str, ours: Families, oracles: Families) -> list[str]:
    wrong: list[str] = []
    for name in sorted({*ours, *oracles}):
        mine, its = ours.get(name, {}), oracles.get(name, {})
        for labels in sorted({*mine, *its}):
            one, other = mine.get(labels), its.get(labels)
            if one is None or other is None or abs(one - other) > _tolerance(name):
                wrong.append(f"{reader}: {name}{labels} is {one}, and should be {other}")
    return wrong


def _tolerance(name: str) -> float:
    """Counts are exact; ages may differ by the rounding of a float."""
    return 0.001 if name.endswith("_seconds") else 0.0
