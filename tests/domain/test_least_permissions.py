"""The least that each part of the domain must be permitted in Redis, found by refusing each command in turn.

ROLES is what the documentation quotes. They are for the ledger's Redis; what the queue lane reads is tested with the
inspector.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest
import redis
from redis.exceptions import NoPermissionError

from otel_queue.cli import FINDING, FINE, main
from otel_queue.config import Config, DomainConfig, LedgerConfig, PostgresConfig, QueueConfig, RedisConfig
from otel_queue.errors import WriteError
from otel_queue.ledger.connect import ledger_store
from otel_queue.ledger.contract import Contract, Rule
from otel_queue.lifecycle import (
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from otel_queue.pipeline import Pipeline
from otel_queue.postgres.database import statement
from otel_queue.ulid import new_ulid
from tests.ledger.ledgers import DAY_US, Ledger, agree_on, day_of, now_us, ulid
from tests.postgres.gateway import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENTS, Gateway
from tests.seeding.scene import DAY, FIRST, LAST, delivery_id, event_id, fill_days
from tests.servers.otel_queue import Scrape
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer, redis_version

SECURITY = Path(__file__).parents[2] / "docs" / "security.md"
MORE_THAN_A_NODE = 200


class Role(NamedTuple):
    """Keys as ACL patterns, the commands, and whether all that the role is for works with them."""

    keys: tuple[str, ...]
    commands: tuple[str, ...]
    works: Callable[[str, Gateway], bool]


def serving(url: str, gateway: Gateway, source: str, shadow: str = "none") -> Pipeline:
    """With the ledger by that URL; the queues are of no matter."""
    queues = f"redis://{url.rpartition('@')[2]}"
    return Pipeline(
        Config(
            redis=RedisConfig(url=queues),
            queue=QueueConfig(min_interval_seconds=0.0, memory_interval_seconds=0.0),
            domain=DomainConfig(source=source, shadow=shadow),
            ledger=LedgerConfig(url=url),
            postgres=PostgresConfig(dsn=gateway.dsn, interval_seconds=1.0),
        )
    )


def settles(pipeline: Pipeline, *wanted: str) -> bool:
    """Whether the metrics appear; False if an error comes first."""

    def answer() -> str:
        found = Scrape(pipeline.scrape("", None).body.decode())
        if sum(found.values("otel_queue_errors_total")):
            return "an error"
        return "all there" if all(found.values(name) for name in wanted) else ""

    return wait_until(answer, within=40, what="series or errors") == "all there"


def reads_the_ledger(url: str, gateway: Gateway) -> bool:
    """Twice: the second time it asks only for what was announced since."""
    pipeline, wanted = serving(url, gateway, "ledger"), (EVENTS, DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS)
    return settles(pipeline, *wanted) and settles(pipeline, *wanted)


def serves_the_database(url: str, gateway: Gateway) -> bool:
    return settles(serving(url, gateway, "postgres"), EVENTS, DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS)


def compares(url: str, gateway: Gateway) -> bool:
    return settles(serving(url, gateway, "ledger", "postgres"), EVENTS, "otel_queue_shadow_drift")


def records() -> Iterator[Record]:
    """Of every kind; a delivery that moves, a group that changes, a late attempt, more ids than a node has."""
    now = now_us()
    yield ProjectDescribed("P", now, "Proj", "O", "Org")
    yield EventCreated("P", ulid(now, 1), now)
    yield EventCreated("P", ulid(now, 1), now, "S1")
    yield DeliveryCreated("P", ulid(now, 2), now, "E1", "t", "S1", status="processing")
    yield StatusSet("P", ulid(now, 2), "success", now + 1, endpoint="E2")
    for number in range(MORE_THAN_A_NODE):
        yield StatusSet("P", ulid(now, 100 + number), "processing", now)
        yield StatusSet("P", ulid(now - 3 * DAY_US, 100 + number), "processing", now)
    yield AttemptMade("P", new_ulid(), now, "E1", True, 200)
    yield AttemptMade("P", ulid(now - 60 * DAY_US, 1), now, "E1", True, 200)


def records_of_a_worker(url: str, _: Gateway) -> bool:
    with (
        closing(ledger_store(Config(redis=RedisConfig(url=url)))) as store,
        closing(redis.Redis.from_url(unrestricted(url))) as client,
    ):
        client.set("oq:contract", Contract(now_us()).text())
        try:
            written = store.write(records(), time.monotonic() + 30)
            client.hset("oq:{P}:meta", "settled", day_of(now_us() - 2 * DAY_US))
            store.write([DayExpired("P", day_of(now_us() - 2 * DAY_US))], time.monotonic() + 30)
        except WriteError:
            return False
    return written.late == 1


def operates(url: str, gateway: Gateway) -> bool:
    """The rows change in between, in every way that takes another path to repair; a count is off, days go."""
    environment = pytest.MonkeyPatch()
    environment.setenv("OTEL_QUEUE_REDIS_URL", url)
    environment.setenv("OTEL_QUEUE_POSTGRES_DSN", gateway.dsn.reveal())

    def run(command: str) -> bool:
        return main(command.split()) == FINE

    def change(*statements: tuple[str, str]) -> bool:
        for text, argument in statements:
            gateway.execute(text, argument)
        return True

    delete, yesterday = "DELETE FROM convoy.{} WHERE {} < %s", day_of(now_us() - DAY_US)
    try:
        return (
            run("ledger init")
            and change(*_rows_of_days(gateway))
            and run("seed --pause 0")
            and change(
                ("UPDATE convoy.event_deliveries SET status = 'Failure' WHERE id = %s", LAST),
                ("DELETE FROM convoy.event_deliveries WHERE id = %s", FIRST),
            )
            and run("reconcile --pause 0")
            and _put_a_count_off(url)
            and not run("ledger check")
            and run("ledger repair")
            and change(
                (delete.format("event_deliveries", "id"), delivery_id(0, 0)),
                (delete.format("events", "id"), event_id(0, 0)),
            )
            and run("reconcile --pause 0")
            and run("ledger show")
            and main(["shadow", "report", "--domain-source", "ledger", "--domain-shadow", "postgres"]) == FINDING
            and _end_the_tracking_of_days(url)
            and run("ledger settle --project Q")
            and run(f"ledger expire --project P --through {yesterday}")
        )
    finally:
        environment.undo()


def _rows_of_days(gateway: Gateway) -> tuple[tuple[str, str], ...]:
    fill_days(gateway)
    # The only one in its status: when it is gone, so is the count.
    gateway.execute("UPDATE convoy.event_deliveries SET status = 'Discarded' WHERE id = %s", FIRST)
    return ()


def unrestricted(url: str) -> str:
    return f"redis://{url.rpartition('@')[2]}"


def _end_the_tracking_of_days(url: str) -> bool:
    with (
        closing(redis.Redis.from_url(unrestricted(url))) as client,
        closing(ledger_store(Config(redis=RedisConfig(url=unrestricted(url))))) as store,
    ):
        # One of a day that ends, and one that tells no day.
        ids = (ulid(now_us() - 3 * DAY_US, 1), "legacy")
        store.write([StatusSet("Q", id_, "processing", now_us()) for id_ in ids], time.monotonic() + 30)
        agree_on(client, rules=(Rule(track_days=1),))
    return True


def _put_a_count_off(url: str) -> bool:
    with closing(redis.Redis.from_url(unrestricted(url))) as client:
        key = f"oq:{{P}}:counts:{DAY}"
        return bool(client.hincrby(key, sorted(client.hkeys(key))[0], 3))


READER = (
    "get", "hmget", "zrange", "zrangebyscore", "zcard", "exists", "hgetall", "zrangebylex", "time", "info",
)  # fmt: skip
LEASE = ("eval", "hget", "hmget", "hset", "hdel", "pexpire", "time")
WORKER = (
    "zrevrange", "evalsha", "script|load", "time", "get", "exists", "hmget", "hget", "hset", "hsetnx", "hincrby",
    "hdel", "hlen", "hexists", "hkeys", "expireat", "unlink", "zadd", "zrem", "zrange", "zrangebyscore",
)  # fmt: skip
OPERATOR = (*WORKER, "zcard", "set", "hgetall", "del", "zscore", "zrangebylex")

ROLES = {
    "reader": Role(("%R~oq:*",), READER, reads_the_ledger),
    "database": Role(("~oq:postgres:*",), LEASE, serves_the_database),
    "shadow": Role(("%R~oq:*", "~oq:postgres:*", "~oq:shadow:*"), tuple(dict.fromkeys((*READER, *LEASE))), compares),
    "worker": Role(("%R~oq:contract", "%R~oq:birth", "~oq:projects", "~oq:{*"), WORKER, records_of_a_worker),
    "operator": Role(("~oq:contract", "%R~oq:birth", "~oq:projects", "~oq:{*", "%R~oq:shadow:*"), OPERATOR, operates),
}
# Done without where they are refused: ages are taken by our own clock then, and a Redis that lost its last records is
# told by its numbers alone.
OPTIONAL = {("reader", "time"), ("reader", "info")}


class Stage(NamedTuple):
    """A database and a Redis, and in it the user `least`, to whom a test gives a role's commands."""

    gateway: Gateway
    server: RedisServer

    @property
    def url(self) -> str:
        return self.server.url_for("least", "secret")

    def allow(self, role: Role, *refused: str) -> None:
        """The role's commands but for those refused, in the state that the role begins with."""
        commands = [f"+{command}" for command in role.commands if command not in refused]
        with self.server.client() as admin:
            admin.execute_command("ACL", "SETUSER", "least", "reset", *acl(role.keys, "secret"), *commands)
            # A script that somebody else has loaded would need no permission to be.
            admin.script_flush()


def acl(keys: tuple[str, ...], password: str) -> list[str]:
    """The first words of a user's rules."""
    patterns = [key if redis_version() >= (7, 0) else key.replace("%R", "") for key in keys]
    return ["on", f">{password}", "-@all", *patterns]


@pytest.fixture
def stage(gateway: Gateway, redis_server: RedisServer) -> Stage:
    for number in range(2):
        gateway.event(f"e{number}", source="S1")
        gateway.delivery(f"d{number}", f"e{number}", "Processing")
    gateway.attempt("200 OK", True)
    return Stage(gateway, redis_server)


def chosen(stage: Stage, name: str) -> Stage:
    """What the role begins with: a ledger to read, or an empty Redis."""
    if name in ("reader", "shadow"):
        with closing(Ledger(stage.server.url)) as ledger:
            ledger.write(*records())
    return stage


@pytest.mark.parametrize("name", ROLES)
def test_the_listed_commands_are_enough(stage: Stage, name: str) -> None:
    role = ROLES[name]
    chosen(stage, name).allow(role)
    assert role.works(stage.url, stage.gateway)


# What the shadow needs is what the other two do, one by one.
@pytest.mark.parametrize(
    ("name", "command"),
    [(name, command) for name, role in ROLES.items() if name != "shadow" for command in role.commands],
)
def test_none_of_them_can_be_left_out(stage: Stage, name: str, command: str) -> None:
    role = ROLES[name]
    chosen(stage, name).allow(role, command)
    assert role.works(stage.url, stage.gateway) is ((name, command) in OPTIONAL)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("reader", "SET oq:contract 1"),
        ("reader", "DEL oq:contract"),
        ("reader", "SMEMBERS asynq:queues"),
        ("database", "GET oq:contract"),
        ("database", "HSET oq:{P}:meta sequence 1"),
        ("shadow", "HSET oq:{P}:meta sequence 1"),
        ("worker", "UNLINK oq:contract"),
        ("worker", "HSET oq:postgres:1:corrected time 1"),
        ("worker", "SADD asynq:queues q"),
        ("worker", "KEYS *"),
        ("worker", "FLUSHALL"),
        ("operator", "ZADD asynq:{q}:lease 1 t"),
        ("operator", "CONFIG GET maxmemory"),
        ("operator", "DEL oq:shadow:1"),
    ],
)
def test_a_role_can_do_nothing_else(stage: Stage, name: str, words: str) -> None:
    stage.allow(ROLES[name])
    with stage.server.client(user="least", password="secret") as client, pytest.raises(NoPermissionError):
        client.execute_command(*words.split())


@pytest.mark.parametrize("command", ["zadd", "zrem"])
def test_a_worker_that_is_refused_in_the_middle_of_a_script_leaves_what_is_to_be_repaired(
    stage: Stage, command: str
) -> None:
    """Redis takes nothing back of a script, and telling it all again later does not mend it: all commands or none."""
    stage.allow(ROLES["worker"], command)
    assert not records_of_a_worker(stage.url, stage.gateway)
    stage.allow(ROLES["worker"])
    assert records_of_a_worker(stage.url, stage.gateway)
    with closing(Ledger(stage.server.url)) as ledger:
        found = ledger.differences()
        assert found
        for day in {each.day for each in found}:
            assert ledger.upkeep.repair("P", day)
        assert ledger.differences() == []


@pytest.mark.parametrize("name", ROLES)
def test_the_documentation_quotes_the_role(name: str) -> None:
    role = ROLES[name]
    words = ["ACL SETUSER", name, "on >PASSWORD -@all", *role.keys, *(f"+{command}" for command in role.commands)]
    assert " ".join(words) in " ".join(SECURITY.read_text(encoding="utf-8").split())


@pytest.mark.parametrize("refused", ["", "updated_at"])
def test_the_role_that_may_seed_may_reconcile(
    own_gateway: Gateway, redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch, refused: str
) -> None:
    """By the grants of seeding; they are more than counting needs."""
    fill_days(own_gateway)
    own_gateway.execute("CREATE ROLE otel_queue LOGIN PASSWORD 'secret'")
    try:
        own_gateway.execute(statement("seed/grants"))
        if refused:
            own_gateway.execute(f"REVOKE SELECT ({refused}) ON convoy.event_deliveries FROM otel_queue")
        monkeypatch.setenv("OTEL_QUEUE_REDIS_URL", redis_server.url)
        monkeypatch.setenv("OTEL_QUEUE_POSTGRES_DSN", own_gateway.dsn_of("otel_queue", "secret").reveal())
        assert main(["ledger", "init"]) == FINE
        assert (main(["reconcile", "--pause", "0"]) == FINE) is (not refused)
    finally:
        own_gateway.execute("DROP OWNED BY otel_queue; DROP ROLE otel_queue")
