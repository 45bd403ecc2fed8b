"""What a read asks for when little changed, and what it finds although nobody announced it."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.ledger.reader import LedgerReader, LedgerSnapshot
from otel_queue.lifecycle import DeliveryCreated, Record
from otel_queue.redis_client import Answers, RedisLink, Request, connect
from tests.ledger.ledgers import DAY_US, Ledger, day_of, ledger_server, now_us, ulid
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer
from tests.servers.redis_cluster import Cluster, redis_cluster

NOW_US = now_us()
PROJECTS = [f"project {number}" for number in range(1200)]
# The clock, the birth and the list of projects; the projects that nobody announced; one of a history.
MOST = 3 + 500 + 1


def told(project: str, number: int) -> Record:
    return DeliveryCreated(project, ulid(NOW_US, number), NOW_US, "E", "t", "S", created_us=NOW_US)


class Counting:
    """A link that counts requests, and knows how long the longest list was that it brought."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self.asked = self.longest = 0

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        self.asked += len(requests)
        for answer in self._link.exchange(requests, deadline):
            replies = [] if isinstance(answer, ReadError) else answer
            self.longest = max([self.longest, *(len(reply) for reply in replies if isinstance(reply, list))])
            yield answer

    def close(self) -> None:
        self._link.close()


class Watched:
    """A reader, and the deliveries that it saw of each project."""

    def __init__(self, url: str) -> None:
        self.link = Counting(connect(RedisConfig(url=url)))
        self.reader = LedgerReader(self.link, timeout_seconds=30)
        self.asked = 0
        self.snapshot: LedgerSnapshot | None = None

    def read(self) -> dict[str, int]:
        before = self.link.asked
        self.snapshot = self.reader.snapshot()
        self.asked = self.link.asked - before
        return {project.project: sum(project.deliveries.values()) for project in self.snapshot.projects}

    def reads(self) -> bool:
        """Whether all of it can be read."""
        try:
            return not self.reader.snapshot().failures
        except ReadError:
            return False


@pytest.fixture
def filled() -> Iterator[Ledger]:
    with ledger_server() as server, closing(Ledger(server.url)) as ledger:
        ledger.write(*(told(project, 1) for project in PROJECTS))
        yield ledger


@pytest.fixture
def watched(filled: Ledger) -> Iterator[Watched]:
    opened = Watched(filled.url)
    assert opened.read() == dict.fromkeys(PROJECTS, 1)
    yield opened
    opened.link.close()


@pytest.fixture
def client(filled: Ledger) -> Iterator[Any]:
    with closing(redis.Redis.from_url(filled.url)) as opened:
        yield opened


def test_an_idle_read_asks_for_a_bounded_number_of_projects(watched: Watched) -> None:
    watched.link.longest = 0
    for _ in range(6):
        assert watched.read() == dict.fromkeys(PROJECTS, 1)
        assert watched.asked <= MOST + 1  # each round asks for the clock
        assert watched.snapshot is not None
        assert watched.snapshot.round_trips == 2
    assert watched.link.longest == 500, "the list of projects is read in parts"


def test_a_change_is_seen_at_once_whoever_else_is_idle(filled: Ledger, watched: Watched) -> None:
    for number, project in enumerate(PROJECTS[::300], start=2):
        filled.write(told(project, number))
        assert watched.read()[project] == 2
        assert watched.asked <= MOST + 10


def test_what_upkeep_changes_is_seen_at_once(filled: Ledger, watched: Watched, client: Any) -> None:
    old, project = NOW_US - DAY_US, PROJECTS[700]
    for name in PROJECTS[700:702]:
        filled.write(DeliveryCreated(name, ulid(old, 2), old, "E", "t", "S", created_us=old))
    assert watched.read()[project] == 2
    filled.upkeep.expire(project, day_of(old))
    assert watched.read()[project] == 1
    [field, *_] = client.hkeys(f"oq:{{{PROJECTS[701]}}}:counts:{day_of(NOW_US)}")
    client.hincrby(f"oq:{{{PROJECTS[701]}}}:counts:{day_of(NOW_US)}", field, 5)
    assert filled.upkeep.repair(PROJECTS[701], day_of(NOW_US))
    assert watched.read()[PROJECTS[701]] == 2


def test_a_change_whose_announcement_was_lost_is_found_in_three_reads(
    filled: Ledger, watched: Watched, client: Any
) -> None:
    project = PROJECTS[700]
    before = client.zscore("oq:projects", project)
    filled.write(told(project, 2))
    client.zadd("oq:projects", {project: before})
    assert 2 in [watched.read()[project] for _ in range(-(-len(PROJECTS) // 500))]


def test_a_project_that_lost_its_meta_is_missed_in_three_reads(watched: Watched, client: Any) -> None:
    client.delete(f"oq:{{{PROJECTS[700]}}}:meta")
    seen = [watched.read() for _ in range(-(-len(PROJECTS) // 500))][-1]
    assert seen == dict.fromkeys((project for project in PROJECTS if project != PROJECTS[700]), 1)
    assert watched.snapshot is not None
    assert watched.snapshot.failures == {"project_lost": 1}


def test_who_is_no_longer_registered_is_gone_from_the_next_read(filled: Ledger, watched: Watched, client: Any) -> None:
    client.zrem("oq:projects", PROJECTS[3])
    assert watched.read().keys() == set(PROJECTS) - {PROJECTS[3]}
    client.zrem("oq:projects", PROJECTS[4])
    filled.write(told("new", 1))
    assert watched.read().keys() == {*PROJECTS, "new"} - {PROJECTS[3], PROJECTS[4]}


@pytest.mark.parametrize("announced", [1, 300])
def test_a_registration_in_the_place_of_another_is_found_in_three_reads(
    filled: Ledger, watched: Watched, client: Any, announced: int
) -> None:
    """As many are registered as before, and the number of the new one is not above the highest."""
    filled.write(told("new", 1))
    client.zadd("oq:projects", {"new": 1})
    client.zrem("oq:projects", PROJECTS[0])
    for start in range(0, 900, 300):
        # Others are announced meanwhile, whose ranks change by it.
        moved = sorted(PROJECTS[1:])[start : start + announced]
        client.zadd("oq:projects", dict.fromkeys(moved, 10 + start))
        seen = watched.read()
    assert seen == dict.fromkeys([*PROJECTS[1:], "new"], 1)


def test_a_list_that_was_lost_grows_again_with_what_is_announced(filled: Ledger, watched: Watched, client: Any) -> None:
    client.delete("oq:projects")
    assert watched.read() == {}
    filled.write(told(PROJECTS[5], 2))
    assert watched.read() == {PROJECTS[5]: 2}


def test_numbers_that_begin_anew_are_told_by_the_highest(filled: Ledger, watched: Watched, client: Any) -> None:
    """The list was put back from a copy; as many are on it, and what changed has a number that was seen before."""
    filled.write(told(PROJECTS[0], 2), told(PROJECTS[1], 2))
    filled.write(told(PROJECTS[2], 2))
    watched.read()
    client.zadd("oq:projects", dict.fromkeys(PROJECTS, 1))
    filled.write(told(PROJECTS[700], 2))
    assert watched.read()[PROJECTS[700]] == 2


def without_the_registry(cluster: Cluster) -> RedisServer:
    """A node of projects alone: without the others nothing can be read."""
    ports = {cluster.port_of(key) for key in (b"oq:projects", b"oq:contract")}
    return next(node for node in cluster.nodes if node.port not in ports)


def alive(cluster: Cluster, failing: RedisServer) -> str:
    return next(f"redis-cluster://127.0.0.1:{node.port}/0" for node in cluster.nodes if node is not failing)


def of(cluster: Cluster, node: RedisServer) -> list[str]:
    return [project for project in PROJECTS if cluster.port_of(f"oq:{{{project}}}".encode()) == node.port]


def test_a_node_that_died_costs_its_projects_and_no_other_and_is_noticed_when_it_is_back() -> None:
    with redis_cluster() as cluster, closing(Ledger(cluster.url)) as ledger:
        failing = without_the_registry(cluster)
        watched = Watched(alive(cluster, failing))
        of_it = of(cluster, failing)
        ledger.write(*(told(project, 1) for project in PROJECTS))
        assert watched.read() == dict.fromkeys(PROJECTS, 1)
        with failing.client() as client:
            client.save()
        ledger.write(told(of_it[0], 2))
        assert watched.read()[of_it[0]] == 2
        failing.kill()
        assert watched.read().keys() == set(PROJECTS) - set(of_it)
        assert watched.snapshot is not None
        assert watched.snapshot.failures == {"connection": len(of_it)}
        failing.start()
        wait_until(cluster.is_whole, what="the cluster is whole again")
        wait_until(watched.reads, what="the reader has found the node again")
        assert watched.read() == dict.fromkeys(PROJECTS, 1)
        watched.link.close()


def test_a_node_that_restarts_between_two_reads_is_noticed_too() -> None:
    with redis_cluster() as cluster, closing(Ledger(cluster.url)) as ledger:
        failing = without_the_registry(cluster)
        watched = Watched(alive(cluster, failing))
        lost = of(cluster, failing)
        ledger.write(*(told(project, 1) for project in PROJECTS))
        watched.read()
        with failing.client() as client:
            client.save()
        ledger.write(*(told(project, 2) for project in lost))
        assert watched.read() == {project: 1 + (project in lost) for project in PROJECTS}
        failing.restart()
        wait_until(cluster.is_whole, what="the cluster is whole again")
        watched.link.close()  # as if the connection had been new: no read fails in between
        assert watched.read() == dict.fromkeys(PROJECTS, 1)
        watched.link.close()
