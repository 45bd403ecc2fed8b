"""The Go recorder and the Python one write the same ledger."""

import itertools
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
import redis

from otel_queue.config import RedisConfig
from otel_queue.errors import WriteError
from otel_queue.ledger.contract import Contract
from otel_queue.ledger.scripts import script
from otel_queue.ledger.store import LedgerStore, Written
from otel_queue.lifecycle import (
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from otel_queue.redis_client import connect
from tests.go_program import GO_WORKER, find_races, run_go
from tests.ledger.go_recorder import (
    line_of,
    replay,
    replay_lines,
    start_replay,
    stats_of,
    work,
)
from tests.ledger.go_stream import HTTP_STATUSES, LABELS, stream
from tests.ledger.ledgers import day_of, now_us, place_of_group
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer, redis_version
from tests.servers.redis import redis_server as new_redis_server
from tests.servers.redis_cluster import redis_cluster

# What the Go program writes at once.
TOGETHER = 2048
WRITE_SECONDS = 30.0

Contents = dict[bytes, tuple[Any, int]]


# One birth, so that both ledgers have the same contract.
CONTRACT = Contract(now_us()).text()


@pytest.fixture
def go_url(redis_server: RedisServer) -> str:
    return begun(redis_server.url)


@pytest.fixture
def python_url(redis_server: RedisServer) -> str:
    """Another database of the same server, so that both writers have the same clock."""
    return begun(redis_server.url.removesuffix("/0") + "/1")


def begun(url: str) -> str:
    with redis.Redis.from_url(url) as client:
        client.set("oq:contract", CONTRACT)
    return url


def write_with_python(url: str, records: Sequence[Record]) -> Written:
    link = connect(RedisConfig(url=url))
    store = LedgerStore(link)
    written = Written()
    for first in range(0, len(records), TOGETHER):
        batch = records[first : first + TOGETHER]
        written = written.plus(store.write(batch, time.monotonic() + WRITE_SECONDS))
    store.close()
    return written


def contents(url: str) -> Contents:
    """All keys of the ledger, with their values and the Unix seconds of their expiry.

    Groups appear by their labels: their numbers follow from which batch came first.
    """
    with redis.Redis.from_url(url) as client:
        return _contents(client)


def _contents(client: Any) -> Contents:
    return {key: (_named(client, key, _value(client, key)), _expiry(client, key)) for key in client.keys("oq:*")}


def _named(client: Any, key: bytes, value: Any) -> Any:
    """The value of a key with labels in the place of group numbers."""
    if key == b"oq:projects":  # how often they were announced depends on the batches
        return sorted(member for member, _ in value)
    project, _, kind = key.rpartition(b"}:")
    if not project:
        return value
    kind = kind.partition(b":")[0]
    labels = {
        int(name[1:]): told for name, told in client.hgetall(project + b"}:groups").items() if name.startswith(b"#")
    }

    def label(number: bytes) -> bytes:
        found: bytes = labels[int.from_bytes(number, "big")]
        return found

    def labelled(what: str, kept: bytes) -> tuple[bytes, bytes, bytes]:
        # What is kept of an undated id begins with a day.
        state = kept[2:] if b":undated" in key else kept
        start, end = place_of_group(what, state)
        # How many bytes the group's number takes follows from the number, and so from the order.
        widths = state[0] & 0x07 if what == "event" else state[1] & 0x3F
        return (
            label(state[start:end]),
            bytes([widths]) + (state[:1] + state[2:start] if what == "delivery" else state[1:start]),
            state[end:],
        )

    # A change counts once per batch, so how often depends on the batches too.
    if kind == b"days":
        return sorted(member for member, _ in value)
    if kind == b"meta":
        return {name: told for name, told in value.items() if name != b"sequence"}
    if kind == b"groups":
        return sorted(name for name in value if not name.startswith(b"#"))
    if kind == b"counts":
        return {(labels[int(name.partition(b":")[0])], name.partition(b":")[2]): told for name, told in value.items()}
    if kind == b"processing":
        return sorted((label(member[:4]), member[4:]) for member, _ in value)
    if kind == b"deliveries":
        return {each: labelled("delivery", state) for each, state in value.items()}
    if kind == b"events":
        return {each: labelled("event", state) for each, state in value.items()}
    return value


def _value(client: Any, key: bytes) -> Any:
    kind = client.type(key)
    if kind == b"string":
        return client.get(key)
    if kind == b"hash":
        return client.hgetall(key)
    if kind == b"zset":
        return client.zrange(key, 0, -1, withscores=True)
    raise AssertionError((key, kind))


def _expiry(client: Any, key: bytes) -> int:
    # Before Redis 7 only whether it expires can be compared.
    told: int = client.expiretime(key) if redis_version() >= (7, 0) else client.ttl(key) > 0
    return told


def test_its_scripts_are_copies_to_the_byte() -> None:
    folder = GO_WORKER.parents[1] / "otel_queue" / "ledger"
    for copy in sorted((GO_WORKER / "recorder" / "lua").iterdir()):
        assert copy.read_bytes() == (folder / copy.name).read_bytes(), f"copy {folder / copy.name} to {copy}"


def test_its_scripts_have_the_same_hashes(redis_server: RedisServer, go_url: str) -> None:
    with redis_server.client() as client:
        client.script_flush()
        replay(go_url, stream(seed=1, size=200, now_us=_now_us()))
        names = ("record_events", "record_deliveries", "record_attempts", "describe_project", "expire_day", "announce")
        assert client.script_exists(*(script(name).sha for name in names)) == [True] * len(names)


@pytest.mark.parametrize("seed", range(4))
def test_any_stream_of_records_makes_the_same_ledger(go_url: str, python_url: str, seed: int) -> None:
    records = list(stream(seed, size=6_000, now_us=_now_us()))
    written = write_with_python(python_url, records)
    stats = replay(go_url, records)
    assert _written(stats) == written
    assert written.changed > 0 < written.unchanged
    assert written.late > 0
    assert contents(go_url) == contents(python_url)


def test_a_stream_fills_more_than_one_node(python_url: str) -> None:
    """Else the streams above would not show that both find the same node."""
    write_with_python(python_url, list(stream(seed=0, size=6_000, now_us=_now_us())))
    nodes = Counter(key.split(b":")[2] for key in contents(python_url) if key.count(b":") == 4)
    assert nodes[b"deliveries"] > 0 < nodes[b"events"]
    assert nodes[b"attempt-ids"] > 0


def test_every_label_in_every_place_makes_the_same_ledger(go_url: str, python_url: str) -> None:
    now_us = _now_us()
    records: list[Record] = []
    for number, (one, two) in enumerate(itertools.product(LABELS, LABELS)):
        records += [
            DeliveryCreated("p", f"delivery {number}", now_us, one, two, two),
            StatusSet("p", f"delivery {number}", "processing", now_us, two, one, one),
            StatusSet("p", f"told later {number}", "Retry", now_us, endpoint=one, source=two, created_us=now_us - 1),
            EventCreated("p", f"event {number}", now_us, one),
            EventCreated("p", f"event {number}", now_us, two),
        ]
    for number, (label, status) in enumerate(itertools.product(LABELS, HTTP_STATUSES)):
        records.append(AttemptMade("p", f"attempt {number}", now_us, label, number % 2 == 0, status))
    write_with_python(python_url, records)
    replay(go_url, records)
    assert contents(go_url) == contents(python_url)


def test_a_cluster_gets_the_same_ledger(python_url: str) -> None:
    records = list(stream(seed=4, size=3_000, now_us=_now_us()))
    write_with_python(python_url, records)
    with redis_cluster() as cluster:
        url = f"redis://127.0.0.1:{cluster.nodes[0].port}"
        with cluster.client() as client:
            client.set("oq:contract", CONTRACT)
        replay(url, records, "-cluster")
        spread: list[Contents] = []
        for node in cluster.nodes:
            with node.client() as client:
                spread.append(_contents(client))
    assert sum(map(bool, spread)) > 1, "its projects are not all on one node"
    assert {key: value for part in spread for key, value in part.items()} == contents(python_url)


def test_what_python_wrote_changes_nothing_when_go_writes_it_again(python_url: str) -> None:
    # Without the day that expires, for its records would be late the second time.
    records = [record for record in stream(seed=5, size=3_000, now_us=_now_us()) if not hasattr(record, "day")]
    first = write_with_python(python_url, records)
    before = contents(python_url)
    again = _written(replay(python_url, reversed(records)))
    assert again == Written(unchanged=first.changed + first.unchanged, late=first.late)
    after = contents(python_url)
    for key in before:
        if not key.endswith(b":meta"):  # has the counts of what was late or known already
            assert after[key] == before[key], key


def test_times_ahead_of_redis_are_clamped_and_counted(redis_server: RedisServer, go_url: str) -> None:
    tomorrow = _now_us() + 86_400_000_000
    stats = replay(go_url, [StatusSet("p", "d", "processing", tomorrow), EventCreated("p", "e", tomorrow)])
    assert stats["Clamped"] == 2
    with redis_server.client() as client:
        assert client.hmget("oq:{p}:meta", "clamped:delivery", "clamped:event") == [b"1", b"1"]


def test_names_and_days_ahead_of_redis_are_clamped_and_counted_alike(
    redis_server: RedisServer, go_url: str, python_url: str
) -> None:
    now_us = _now_us()
    records: list[Record] = [
        StatusSet("p", "d", "success", now_us),
        ProjectDescribed("p", now_us + 365 * 86_400_000_000, "Ahead"),
        DayExpired("p", day_of(now_us)),
    ]
    stats = replay(go_url, records)
    assert _written(stats) == write_with_python(python_url, records) == Written(changed=1, clamped=2)
    with redis_server.client() as client:
        clamped = client.hmget("oq:{p}:meta", "clamped:project", "clamped:day", "expired")
        described_us = int(client.hget("oq:{p}:meta", "described_at") or 0)
    assert clamped == [b"1", b"1", None]
    assert now_us < described_us < now_us + 86_400_000_000


def test_a_record_that_cannot_be_kept_costs_no_other(go_url: str, python_url: str) -> None:
    good: list[Record] = [StatusSet("p", "d", "success", _now_us()), EventCreated("p", "e", _now_us())]
    bad = [line_of(StatusSet("p", "d", "lost", _now_us())), line_of(EventCreated("", "e", _now_us()))]
    stats = replay_lines(go_url, [line_of(good[0]), *bad, line_of(good[1])])
    assert (stats["Invalid"], stats["Changed"]) == (2, 2)
    write_with_python(python_url, good)
    assert contents(go_url) == contents(python_url)


def test_an_outage_loses_nothing() -> None:
    records = list(stream(seed=6, size=500, now_us=_now_us()))
    with new_redis_server() as server:
        server.kill()
        with start_replay(server.url) as process:
            assert process.stdin is not None
            assert process.stderr is not None
            for record in records:
                process.stdin.write(line_of(record) + "\n")
            process.stdin.close()
            process.stdin = None
            assert "cannot be written" in process.stderr.readline()
            server.start()
            begun(server.url)
            stats = stats_of(process, "")
        assert (stats["Queued"], stats["Dropped"]) == (0, 0)
        assert stats["Failures"] > 0
        python_url = begun(server.url.removesuffix("/0") + "/1")
        assert _written(stats) == write_with_python(python_url, records)
        assert contents(server.url) == contents(python_url)


@pytest.fixture
def worked(redis_server: RedisServer) -> Iterator[Any]:
    """The ledger, as the example worker leaves it after two rounds of its four outcomes."""
    stats = work(begun(redis_server.url), tasks=8)
    assert stats["Queued"] + stats["Dropped"] + stats["Invalid"] + stats["Unlabelled"] == 0, stats
    with redis_server.client() as client:
        yield client


def test_the_worker_records_attempts(worked: Any) -> None:
    assert worked.hgetall("oq:{shop}:attempts") == {
        b"orders\0success\x00200": b"2",
        b"billing\0failure\x00503": b"2",
        b"stock\0failure\0none": b"2",
    }


def test_the_worker_records_deliveries_and_events_with_the_labels_of_their_tasks(worked: Any) -> None:
    labels = worked.hgetall("oq:{shop}:groups")
    counts: Counter[bytes] = Counter()
    for day in worked.zrange("oq:{shop}:days", 0, -1):
        for field, count in worked.hgetall(b"oq:{shop}:counts:" + day).items():
            number, what = field.split(b":")
            counts[labels[b"#" + number] + b" " + what] += int(count)
    assert counts == {
        b"event=http e": 8,
        b"=orders\0=order.paid\0=http 6": 2,
        b"=billing\0=order.paid\0=http 3": 2,
        b"=stock\0=order.paid\0=http 5": 2,
        b"=archive\0=order.paid\0=http 4": 2,
    }


def test_the_worker_leaves_nothing_in_processing(worked: Any) -> None:
    assert worked.keys("oq:{shop}:processing:*") == []


def test_the_worker_describes_its_project(worked: Any) -> None:
    names = worked.hmget("oq:{shop}:meta", "project_name", "organisation_id", "organisation_name")
    assert names == [b"Shop", b"acme", b"Acme Inc."]
    assert worked.zrange("oq:projects", 0, -1) == [b"shop"]


def test_the_recorders_own_go_tests_pass() -> None:
    tested = run_go(GO_WORKER, "test", "-p", "2", "./...")
    assert tested.returncode == 0, tested.stdout + tested.stderr


@pytest.mark.timeout(900)  # the first time, Go compiles its library for the race detector
def test_its_goroutines_share_nothing_unguarded_and_count_each_record_once(
    redis_server: RedisServer, go_url: str
) -> None:
    """Many goroutines record while the link breaks and one project is refused."""
    tested = find_races(GO_WORKER, LEDGER_TEST_REDIS=go_url.removeprefix("redis://").removesuffix("/0"))
    assert tested.returncode == 0, tested.stdout + tested.stderr
    assert "--- SKIP" not in tested.stdout
    assert sum(_events_of(redis_server, project) for project in ("p0", "p1", "p2", "p3", "refused")) == 8 * 500 + 2


def test_a_label_that_is_not_told_is_not_null(go_url: str) -> None:
    replay(go_url, [EventCreated("p", "e", _now_us(), UNTOLD)])
    with redis.Redis.from_url(go_url) as client:
        assert client.hgetall("oq:{p}:groups") == {b"event": b"1", b"#1": b"event"}


def _written(stats: dict[str, int]) -> Written:
    return Written(stats["Changed"], stats["Unchanged"], stats["Late"], stats["Clamped"])


def _now_us() -> int:
    return time.time_ns() // 1000


def test_go_and_python_both_refuse_another_protocol_by_name_and_go_on_with_other_projects(
    redis_server: RedisServer, go_url: str
) -> None:
    now_us = _now_us()

    def event(project: str, number: int) -> EventCreated:
        return EventCreated(project, f"event {number}", now_us, "S")

    write_with_python(go_url, [event("theirs", 1), event("ours", 1)])
    with redis_server.client() as client:
        client.hset("oq:{theirs}:meta", "contract", "3;1;1;00000000:30:7:100000;")
    with pytest.raises(WriteError, match="of protocol 3, and this version of otel-queue speaks protocol 2"):
        write_with_python(go_url, [event("theirs", 2)])
    with start_replay(go_url, "-live") as process:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write("".join(line_of(event(project, 3)) + "\n" for project in ("theirs", "ours")))
        process.stdin.flush()
        told = process.stderr.readline()
        wait_until(lambda: _events_of(redis_server, "ours") == 2, what="the other project's record is written")
        process.kill()
    assert "of protocol 3, and this recorder speaks protocol 2" in told
    assert _events_of(redis_server, "theirs") == 1


def _events_of(server: RedisServer, project: str) -> int:
    with server.client() as client:
        counts: Any = client.keys(f"oq:{{{project}}}:counts:*")
        return sum(int(count) for key in counts for count in client.hvals(key))
