"""The table of docs/reliability.md: what each writer keeps through each fault, with workers that are real processes."""

import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import pytest

from otel_queue.lifecycle import Record
from tests.ledger.ledgers import Ledger, assert_every_key_has_a_life, assert_same, expected, ledger_server, now_us
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, EVENTS, Families
from tests.ledger.worker_process import records_of
from tests.servers.process import wait_until
from tests.servers.proxy import slow_proxy
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import Cluster, redis_cluster
from tests.servers.redis_sentinel import redis_sentinel

WRITERS: Final = ("sync", "buffered", "committed")

NOTHING = "nothing"
QUEUED = "what is queued"
TWO_SECONDS = "up to two seconds"
UNREPLICATED = "what the replica lacks"
NO_ROOM = "what has no room"

# What may be lost of what was acknowledged, by fault and writer; the cells of docs/reliability.md.
TABLE: Final[Mapping[str, Mapping[str, str]]] = {
    "worker killed (SIGKILL)": {"sync": QUEUED, "buffered": QUEUED, "committed": NOTHING},
    "Redis killed, `appendfsync always`": {"sync": NOTHING, "buffered": NOTHING, "committed": NOTHING},
    "Redis killed, `appendfsync everysec`": {
        "sync": TWO_SECONDS, "buffered": TWO_SECONDS, "committed": TWO_SECONDS,
    },
    "Sentinel failover": {"sync": UNREPLICATED, "buffered": UNREPLICATED, "committed": UNREPLICATED},
    "Cluster, a node dead or hung: its projects": {"sync": NO_ROOM, "buffered": NO_ROOM, "committed": NOTHING},
    "Cluster, a node dead or hung: other projects": {"sync": NOTHING, "buffered": NOTHING, "committed": NOTHING},
}  # fmt: skip


def test_the_table_in_the_documentation_is_the_one_that_is_tested() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reliability.md").read_text()
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if cells[0] in TABLE:
            found[cells[0]] = dict(zip(WRITERS, cells[1:], strict=True))
    assert found == TABLE


@dataclass
class Worker:
    """A worker process. `acked` are the tasks whose handlers have returned, `failed` are to be delivered again."""

    process: subprocess.Popen[str]
    acked: list[int] = field(default_factory=list)
    failed: list[int] = field(default_factory=list)
    flushes: int = 0

    def send(self, tasks: Iterable[int | str]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write("".join(f"{task}\n" for task in tasks))
        self.process.stdin.flush()

    def listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, rest = line.strip().partition(" ")
            if word == "flushed":
                assert rest == "True"
                self.flushes += 1
            else:
                (self.acked if word == "ack" else self.failed).append(int(rest))

    def work_off(self, tasks: Iterable[int]) -> None:
        """Delivers the tasks, again where they fail, until all are acknowledged and nothing is queued."""
        wanted = set(tasks)
        self.send(sorted(wanted))

        def is_done() -> bool:
            again = [self.failed.pop() for _ in range(len(self.failed))]
            self.send(again)
            return wanted <= set(self.acked)

        wait_until(is_done, what="all tasks are acknowledged")
        flushes = self.flushes
        self.send(["flush"])
        wait_until(lambda: self.flushes > flushes, what="what was queued is written")

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def worker(url: str, writer: str, base_us: int) -> Iterator[Worker]:
    command = [sys.executable, "-m", "tests.ledger.worker_process", url, writer, str(base_us)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        running = Worker(process)
        listener = threading.Thread(target=running.listen)
        listener.start()
        try:
            yield running
            assert process.stdin is not None
            process.stdin.close()
            process.wait(timeout=40)
        finally:
            process.kill()
            listener.join()
            with contextlib.suppress(BrokenPipeError):
                process.stdin.close() if process.stdin else None


def all_records(tasks: Iterable[int], base_us: int) -> list[Record]:
    return [record for task in tasks for record in records_of(task, base_us)]


def assert_holds(ledger: Ledger, tasks: Iterable[int], base_us: int) -> None:
    families, now = ledger.read()
    assert_same(families, expected(all_records(tasks, base_us), now))
    assert ledger.differences() == []


def totals(families: Families) -> dict[str, float]:
    return {name: sum(families[name].values()) for name in (EVENTS, DELIVERIES, ATTEMPTS)}


# SIGKILL ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", ["sync", "committed"])
def test_a_killed_worker_loses_nothing_that_was_written_before_its_task_was_acknowledged(
    ledger: Ledger, writer: str
) -> None:
    base_us = now_us() - 3_600_000_000
    tasks = range(400)
    with worker(ledger.url, writer, base_us) as first:
        first.send(tasks)
        wait_until(lambda: len(first.acked) > 20, what="some tasks are acknowledged")
        first.kill()
    assert first.acked, "nothing was acknowledged"
    acked = set(first.acked)
    for record in all_records(acked, base_us):
        assert ledger.write(record) == (0, 1, 0, 0), f"{record} was acknowledged and is not in the ledger"
    assert ledger.differences() == []
    with worker(ledger.url, writer, base_us) as second:
        # The task that was in hand at the time is partly recorded, and is delivered again.
        second.work_off(set(tasks) - acked)
    assert_holds(ledger, tasks, base_us)


@pytest.mark.parametrize("writer", WRITERS)
def test_a_worker_killed_while_nothing_reaches_redis_loses_what_it_queued_and_committed_queues_nothing(
    redis_server: RedisServer, ledger: Ledger, writer: str
) -> None:
    base_us = now_us() - 3_600_000_000
    with (
        slow_proxy(redis_server.port) as proxy,
        worker(f"redis://127.0.0.1:{proxy.port}/0", writer, base_us) as running,
    ):
        running.work_off(range(5))
        proxy.blackhole()
        running.send(range(5, 10))
        if writer == "committed":
            wait_until(lambda: running.failed, what="a task fails")
        else:
            wait_until(lambda: len(running.acked) == 10, what="tasks are acknowledged all the same")
        running.kill()
    assert len(running.acked) == (5 if writer == "committed" else 10)
    assert_holds(ledger, range(5), base_us)
    ledger.write(*all_records(range(5, 10), base_us))
    assert_holds(ledger, range(10), base_us)


# Redis killed ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("fsync", ["always", "everysec"])
def test_a_killed_redis_that_comes_back_has_what_its_append_only_file_has(writer: str, fsync: str) -> None:
    base_us = now_us() - 3_600_000_000
    tasks = range(150)
    with ledger_server("--appendonly", "yes", "--appendfsync", fsync) as server:
        ledger = Ledger(server.url)
        with worker(server.url, writer, base_us) as running:
            running.send(tasks[:100])
            wait_until(lambda: len(running.acked) > 10, what="some tasks are acknowledged")
            server.kill()
            server.start()
            running.work_off(tasks)
        if fsync == "always":
            assert_holds(ledger, tasks, base_us)
        else:
            # Up to two seconds may be missing, and never half a record.
            families, _ = wait_until(ledger.read, what="the ledger is read")
            assert ledger.differences() == []
            assert all(count <= len(tasks) for count in totals(families).values())
            ledger.write(*all_records(tasks, base_us))
            assert_holds(ledger, tasks, base_us)
        ledger.close()


def test_a_ledger_that_lost_the_end_of_its_file_is_whole_and_takes_the_records_again() -> None:
    """A power failure with `appendfsync everysec`: the file ends earlier, in the middle of something."""
    base_us = now_us() - 3_600_000_000
    with ledger_server("--appendonly", "yes", "--aof-use-rdb-preamble", "no") as server:
        ledger = Ledger(server.url)
        for task in range(50):
            ledger.write(*records_of(task, base_us))
        with server.client() as client:
            directory = Path(str(client.config_get("dir")["dir"]))
        server.kill()
        [log] = directory.glob("appendonlydir/*.incr.aof")
        with log.open("r+b") as file:
            file.truncate(log.stat().st_size * 2 // 3)
        server.start()
        families, _ = wait_until(ledger.read, what="the ledger is read")
        assert 0 < totals(families)[DELIVERIES] < 50
        assert ledger.differences() == []
        ledger.write(*all_records(range(50), base_us))
        assert_holds(ledger, range(50), base_us)
        ledger.close()


# Failover --------------------------------------------------------------------------------------------------------

BEFORE, UNSEEN, AFTER = range(20), range(20, 30), range(30, 40)


@pytest.fixture(scope="module")
def after_failover() -> Iterator[tuple[RedisServer, dict[str, int]]]:
    """The new master, and the base of each writer's tasks; BEFORE and AFTER reached it, UNSEEN only the old one."""
    bases = {writer: now_us() - (number + 1) * 3_600_000_000 for number, writer in enumerate(WRITERS)}
    with redis_sentinel() as sentinels, contextlib.ExitStack() as stack:
        Ledger(sentinels.master.url).close()
        workers = [stack.enter_context(worker(sentinels.url, *item)) for item in bases.items()]
        for each in workers:
            each.work_off(BEFORE)
        wait_until(lambda: _is_in_step(sentinels.master, sentinels.replica), what="the replica is in step")
        sentinels.replica.pause()
        with sentinels.master.client() as client:
            client.execute_command("CLIENT", "KILL", "TYPE", "replica")
        for each in workers:
            each.work_off(UNSEEN)
        sentinels.master.kill()
        sentinels.replica.resume()
        sentinels.failover()
        for each in workers:
            each.work_off(AFTER)
        yield sentinels.replica, bases


def _is_in_step(master: RedisServer, replica: RedisServer) -> bool:
    with master.client() as one, replica.client() as other:
        mine, its = one.info("replication"), other.info("replication")
    return bool(mine["master_repl_offset"] == its["master_repl_offset"])


@pytest.mark.parametrize("writer", WRITERS)
def test_a_failover_loses_what_the_replica_had_not_received_and_nothing_else(
    after_failover: tuple[RedisServer, dict[str, int]], writer: str
) -> None:
    server, bases = after_failover
    ledger = Ledger(server.url)

    def write_again(tasks: Iterable[int]) -> tuple[int, int]:
        written = ledger.write(*all_records(tasks, bases[writer]))
        return written.changed, written.unchanged

    assert write_again([*BEFORE, *AFTER]) == (0, 30 * 5)
    assert ledger.differences() == []
    assert write_again(UNSEEN) == (10 * 5, 0)
    assert ledger.differences() == []
    ledger.close()
    assert_every_key_has_a_life(server)


# A node of a cluster ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize("is_hung", [False, True], ids=["dead", "hung"])
def test_a_node_that_is_gone_keeps_its_own_projects_waiting_and_no_others(writer: str, is_hung: bool) -> None:
    base_us = now_us() - 3_600_000_000
    settings = ("--appendonly", "yes", "--appendfsync", "always", "--cluster-require-full-coverage", "no")
    with redis_cluster(*settings) as cluster:
        ledger = Ledger(cluster.url)
        ports = {project: cluster.port_of(f"oq:{{{project}}}:meta".encode()) for project in ("p0", "p1", "p2")}
        node = next(node for node in cluster.nodes if node.port == ports["p1"])
        waiting = {task for task in range(30, 36) if ports[f"p{task % 3}"] == node.port}
        others = set(range(36)) - waiting
        with worker(cluster.url, writer, base_us) as running:
            running.work_off(range(30))
            (node.pause if is_hung else node.kill)()
            running.send(range(30, 36))
            wait_until(lambda: others <= set(running.acked), what="the others' tasks are acknowledged")
            if writer == "committed":
                assert not waiting & set(running.acked)
            else:
                wait_until(lambda: waiting <= set(running.acked), what="its own tasks are acknowledged too")
            wait_until(partial(_has_attempts, cluster, ports, node, others), what="the others are in the ledger")
            (node.resume if is_hung else node.start)()
            wait_until(cluster.is_whole, what="the cluster is whole again")
            running.work_off(range(36))
        assert_holds(ledger, range(36), base_us)
        ledger.close()


def _has_attempts(cluster: Cluster, ports: Mapping[str, int], gone: RedisServer, tasks: Iterable[int]) -> bool:
    """Whether the ledger has one attempt of each of these tasks whose project is on a node that answers."""
    found = 0
    for node in cluster.nodes:
        with node.client() as client:
            for project, port in ports.items():
                if port == node.port != gone.port:
                    found += sum(map(int, client.hvals(f"oq:{{{project}}}:attempts")))
    return found == sum(ports[f"p{task % 3}"] != gone.port for task in tasks)
