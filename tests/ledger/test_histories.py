"""A Redis that goes on from an earlier moment gives the same numbers to other content; a running reader must see it."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.ledger.reader import LedgerReader
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, Record, StatusSet
from otel_queue.redis_client import Answers, RedisLink, Request, connect
from tests.ledger.ledgers import DAY_US, Ledger, assert_same, day_of, expected, families_of, ledger_server, now_us, ulid
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer, redis_server, wait_until_synchronised
from tests.servers.redis_cluster import redis_cluster

NOW_US = now_us()
TODAY = day_of(NOW_US)
PROJECTS = [f"project {number}" for number in range(6)]
ACL_WITHOUT_INFO = (
    "exporter on >secret -@all ~oq:* +get +hmget +zrange +hgetall +zrangebylex +time +zcard +zrangebyscore +exists"
)


def told(endpoint: str, number: int, project: str = "p") -> list[Record]:
    """One record of a delivery and one of an attempt: the same numbers follow, whatever the endpoint is called."""
    return [
        DeliveryCreated(project, ulid(NOW_US, number), NOW_US, endpoint, "t", None, created_us=NOW_US),
        AttemptMade(project, ulid(NOW_US, number), NOW_US, endpoint, True, 200),
    ]


KEPT, LOST, NEW = told("kept", 1), told("lost", 2), told("new", 3)


class Watched:
    """A reader on a link of its own."""

    def __init__(self, url: str) -> None:
        self.link = connect(RedisConfig(url=url))
        self.reader = LedgerReader(self.link)
        self.round_trips = 0

    def sees(self, *records: Record) -> None:
        snapshot = self.reader.snapshot()
        assert snapshot.failures == {}
        assert_same(families_of(snapshot), expected(records, snapshot.time))
        self.round_trips = snapshot.round_trips


@pytest.fixture
def watched() -> Iterator[Callable[[str], Watched]]:
    opened: list[Watched] = []

    def watch(url: str) -> Watched:
        opened.append(Watched(url))
        return opened[-1]

    yield watch
    for each in opened:
        each.link.close()


def numbers(client: redis.Redis, project: str = "p") -> list[Any]:
    """What a reader tells changes by."""
    key = f"oq:{{{project}}}"
    return [client.hget(f"{key}:meta", "sequence"), client.zrange(f"{key}:days", 0, -1, withscores=True)]


def write(url: str, *records: Record) -> None:
    ledger = Ledger(url)
    ledger.write(*records)
    ledger.close()


def backup_of(client: Any) -> list[tuple[bytes, int, bytes]]:
    """All keys as they are: name, TTL in milliseconds (0 for none), content."""
    return [(key, max(client.pttl(key), 0), client.dump(key)) for key in client.keys("*")]


def test_a_redis_that_was_killed_and_lost_its_last_records(watched: Callable[[str], Watched]) -> None:
    with ledger_server() as server:
        exporter = watched(server.url)
        write(server.url, *KEPT)
        with server.client() as client:
            client.save()
            write(server.url, *LOST)
            exporter.sees(*KEPT, *LOST)
            before = numbers(client)
        server.restart()
        write(server.url, *NEW)
        with server.client() as client:
            assert numbers(client) == before
        exporter.sees(*KEPT, *NEW)
        exporter.sees(*KEPT, *NEW)
        assert exporter.round_trips == 2


def test_a_demoted_master_that_kept_the_readers_connection(watched: Callable[[str], Watched]) -> None:
    with ledger_server() as master, redis_server(replica_of=master) as replica:
        exporter = watched(master.url)
        write(master.url, *KEPT)
        with master.client() as client, replica.client() as other:
            wait_until(lambda: numbers(other) == numbers(client), what="the replica has all")
            other.replicaof("NO", "ONE")
            write(master.url, *LOST)
            exporter.sees(*KEPT, *LOST)
            write(replica.url, *NEW)
            assert numbers(other) == numbers(client)
            client.replicaof("127.0.0.1", str(replica.port))
            wait_until_synchronised(master)
            exporter.sees(*KEPT, *NEW)
            client.replicaof("NO", "ONE")


def test_one_node_of_a_cluster_that_lost_its_last_records(watched: Callable[[str], Watched]) -> None:
    def all_of(endpoint: str, number: int) -> list[Record]:
        return [record for project in PROJECTS for record in told(endpoint, number, project)]

    with redis_cluster() as cluster:
        exporter = watched(cluster.url)
        write(cluster.url, *all_of("kept", 1))
        failing = cluster.nodes[2]
        on_it = [project for project in PROJECTS if cluster.port_of(f"oq:{{{project}}}".encode()) == failing.port]
        assert 0 < len(on_it) < len(PROJECTS)
        with failing.client() as client:
            client.save()
        write(cluster.url, *all_of("lost", 2))
        exporter.sees(*all_of("kept", 1), *all_of("lost", 2))
        failing.restart()
        wait_until(cluster.is_whole, what="the cluster is whole again")
        new = [record for project in on_it for record in told("new", 3, project)]
        write(cluster.url, *new)
        elsewhere = [record for record in all_of("lost", 2) if record.project not in on_it]
        wait_until(lambda: _reads(exporter), what="the reader has found the node again")
        exporter.sees(*all_of("kept", 1), *elsewhere, *new)


def _reads(exporter: Watched) -> bool:
    try:
        return not exporter.reader.snapshot().failures
    except ReadError:
        return False


def test_a_connection_that_was_lost_costs_no_second_reading(
    ledger: Ledger, redis_server: RedisServer, watched: Callable[[str], Watched]
) -> None:
    exporter = watched(ledger.url)
    ledger.write(*KEPT)
    exporter.sees(*KEPT)
    with redis_server.client() as client:
        client.client_kill_filter(_type="normal", skipme=True)
    exporter.sees(*KEPT)
    assert exporter.round_trips == 2


@pytest.mark.parametrize("overtaken", [False, True])
def test_numbers_that_went_back_tell_it_where_info_is_refused(
    watched: Callable[[str], Watched], overtaken: bool
) -> None:
    """Also when the sequence is beyond what was read, if one of the days is not."""
    with redis_server(users=[ACL_WITHOUT_INFO]) as server:
        exporter = watched(server.url_for("exporter", "secret"))
        write(server.url, *KEPT)
        with server.client() as client:
            client.save()
        write(server.url, *LOST, *told("lost", 4))
        exporter.sees(*KEPT, *LOST, *told("lost", 4))
        exporter.sees(*KEPT, *LOST, *told("lost", 4))
        assert exporter.round_trips == 2
        server.restart()
        # Of one kind, so that the other day's number stays behind.
        new = [told("new", number)[0] for number in range(10, 20)] if overtaken else [NEW[0]]
        for record in new:
            write(server.url, record)
        exporter.sees(*KEPT, *new)


def test_a_sequence_that_went_back_tells_it_where_no_day_did(watched: Callable[[str], Watched]) -> None:
    """The only day that changed is gone; the number of its group means another one."""

    def on(days_ago: int, endpoint: str, number: int) -> Record:
        return DeliveryCreated("p", ulid(NOW_US - days_ago * DAY_US, number), NOW_US, endpoint, "t", None)

    lost, new = [on(1, "lost", 1), on(1, "lost", 2)], on(2, "new", 1)
    with redis_server(users=[ACL_WITHOUT_INFO]) as server:
        exporter = watched(server.url_for("exporter", "secret"))
        write(server.url, *KEPT)
        with server.client() as client:
            client.save()
        for record in lost:
            write(server.url, record)
        exporter.sees(*KEPT, *lost)
        server.restart()
        write(server.url, new)
        exporter.sees(*KEPT, new)


def test_a_backup_put_in_the_place_of_a_ledger_that_was_seen_to_be_gone(
    ledger: Ledger, redis_server: RedisServer, watched: Callable[[str], Watched]
) -> None:
    """The same Redis, the same birth, the same numbers."""
    exporter = watched(ledger.url)
    ledger.write(*KEPT)
    with redis_server.client() as client:
        backup = backup_of(client)
        ledger.write(*LOST)
        exporter.sees(*KEPT, *LOST)
        before = numbers(client)
        client.flushall()
        with pytest.raises(ReadError, match="never begun, or was lost"):
            exporter.reader.snapshot()
        for key, life, content in backup:
            client.restore(key, life, content)
        ledger.write(*NEW)
        assert numbers(client) == before
    exporter.sees(*KEPT, *NEW)


COUNTS, PROCESSING = (f"oq:{{p}}:{what}:{TODAY}" for what in ("counts", "processing"))
RUNNING: list[Record] = [
    DeliveryCreated("p", ulid(NOW_US, number), NOW_US, endpoint, "t", None, "processing", NOW_US)
    for number, endpoint in enumerate(("E1", "E2", "E2"))
]
DONE = [StatusSet("p", ulid(NOW_US, number), "success", NOW_US + 1) for number in range(3)]


@pytest.mark.parametrize("lost", ["the index", "what it has of one group"])
def test_a_backlog_without_its_index_is_unknown_and_not_zero(
    ledger: Ledger, redis_server: RedisServer, lost: str
) -> None:
    ledger.write(*RUNNING)
    with redis_server.client() as client:
        members: Any = client.zrange(PROCESSING, 0, -1)
        assert len(members) == 3
        client.zrem(PROCESSING, *(members if lost == "the index" else members[:1]))
    snapshot = ledger.snapshot()
    assert snapshot.failures == {"day_lost": 1}
    assert snapshot.projects == ()
    assert ledger.upkeep.repair("p", TODAY)
    families, now = ledger.read()
    assert_same(families, expected(RUNNING, now))


class Meanwhile:
    """A link on which somebody else writes just before the index is read."""

    def __init__(self, link: RedisLink, writes: list[Callable[[], object]]) -> None:
        self._link = link
        self._writes = writes

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        if self._writes and any(b"ZRANGEBYLEX" in item.packed for item in requests):
            self._writes.pop(0)()
        return self._link.exchange(requests, deadline)

    def close(self) -> None:
        self._link.close()


def test_a_delivery_that_is_done_before_its_index_is_read_is_not_called_lost(ledger: Ledger) -> None:
    ledger.write(*RUNNING)
    link = Meanwhile(connect(RedisConfig(url=ledger.url)), [lambda: ledger.write(*DONE)])
    reader = LedgerReader(link)
    first = reader.snapshot()
    assert first.failures == {}
    assert [project.oldest_us() for project in first.projects] == [{}]
    second = reader.snapshot()
    assert_same(families_of(second), expected([*RUNNING, *DONE], second.time))
    link.close()


def test_a_delivery_that_begins_while_another_ends_is_the_oldest(ledger: Ledger) -> None:
    """The index is empty when it is read first, and not when it is looked at again."""
    began = DeliveryCreated("p", ulid(NOW_US, 9), NOW_US, "E2", "t", None, "processing", NOW_US - 5)
    ledger.write(*RUNNING)
    writes: list[Callable[[], object]] = [lambda: ledger.write(*DONE), lambda: ledger.write(began)]
    link = Meanwhile(connect(RedisConfig(url=ledger.url)), writes)
    [project] = LedgerReader(link).snapshot().projects
    assert list(project.oldest_us().values()) == [NOW_US - 5]
    link.close()
