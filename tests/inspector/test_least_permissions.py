"""The least that a Redis user must be permitted, found by refusing each command in turn.

LEAST is what the documentation quotes: `ACL SETUSER otel-queue on >PASSWORD %R~asynq:* ` and these commands.
"""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis

from otel_queue.asynq import keys
from otel_queue.asynq.inspector import Inspector
from otel_queue.config import Config, RedisConfig
from otel_queue.doctor import examine
from otel_queue.errors import ReadError
from tests.inspector.filled import FILLED, SERVER, assert_shows_all, fill, inspecting, queue_of, values
from tests.servers.redis import RedisServer, redis_version

# For snapshots, which is all that `otel-queue serve` needs, sampled task types included.
SNAPSHOT = (
    "smembers", "scard", "llen", "lrange", "zcard", "zcount", "zrange", "zrangebyscore",
    "get", "mget", "exists", "hget", "hvals",
)  # fmt: skip
# For `otel-queue inspect`: whether a queue exists, and which active tasks are orphaned.
INSPECT = ("sismember", "zscore")
# Each makes the numbers better or more, and is done without where it is refused.
OPTIONAL = ("multi", "exec", "time", "memory|usage")
# `otel-queue check` looks at the eviction policy with it, and warns that it cannot where it is refused.
CHECK = ("info",)
# Only for a database other than 0.
SELECT = ("select",)

LEAST = (*SNAPSHOT, *INSPECT, *OPTIONAL)


def acl_line(commands: tuple[str, ...]) -> str:
    pattern = "%R~asynq:*" if redis_version() >= (7, 0) else "~asynq:*"
    return f"least reset on >secret -@all {pattern} " + " ".join(f"+{command}" for command in commands)


class Permissions:
    """The user `least` of a server, to whom a test gives commands."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.admin = server.client()

    def allow(self, *commands: str) -> None:
        """Exactly these."""
        self.admin.execute_command("ACL", "SETUSER", *acl_line(commands).split())

    def without(self, *refused: str) -> None:
        """LEAST but for these."""
        self.allow(*(command for command in LEAST if command not in refused))

    @property
    def url(self) -> str:
        return self.server.url_for("least", "secret")


@pytest.fixture
def permissions(redis_server: RedisServer) -> Permissions:
    with redis_server.client() as client:
        fill(client)
    return Permissions(redis_server)


@pytest.fixture
def least(permissions: Permissions) -> Iterator[Inspector]:
    """An inspector that connects as `least`, to whom the test has yet to give commands."""
    with inspecting(permissions.url) as inspector:
        yield inspector


def test_a_user_with_the_least_commands_reads_everything(permissions: Permissions, least: Inspector) -> None:
    permissions.allow(*LEAST)
    assert_shows_all(least)


def test_snapshots_need_fewer_commands_than_inspecting(permissions: Permissions, least: Inspector) -> None:
    permissions.allow(*SNAPSHOT)
    snapshot = least.snapshot()
    assert snapshot.failures == {}
    assert values(queue_of(least)) == FILLED
    assert least.sample_task_types(["filled"])["filled"]["pending"] == {"type:t5": 1, "type:t6": 1}


def test_another_database_needs_select(permissions: Permissions) -> None:
    url = permissions.url.removesuffix("/0") + "/1"
    permissions.allow(*LEAST)
    with inspecting(url) as inspector, pytest.raises(ReadError) as refused:
        inspector.snapshot()
    assert refused.value.reason == "permission"
    permissions.allow(*LEAST, *SELECT)
    with inspecting(url) as inspector:
        assert inspector.snapshot().queues == ()


def findings(permissions: Permissions) -> dict[str, str]:
    config = Config(redis=RedisConfig(url=permissions.url))
    return {item.subject: item.status for item in examine(config)}


def test_check_is_content_with_the_least_commands_and_info(permissions: Permissions) -> None:
    permissions.allow(*LEAST, *CHECK)
    assert set(findings(permissions).values()) == {"ok"}
    permissions.allow(*LEAST)
    found = findings(permissions)
    assert {subject for subject, status in found.items() if status != "ok"} == {"eviction policy"}
    assert found["eviction policy"] == "warn"


@pytest.mark.parametrize("command", [*SNAPSHOT, *INSPECT])
def test_check_names_the_refused_command(permissions: Permissions, command: str) -> None:
    permissions.without(command)
    found = findings(permissions)
    assert found[f"command {command.upper()}"] == "fail"


@pytest.mark.parametrize(
    ("command", "subject"),
    [
        ("multi", "MULTI"),
        ("exec", "MULTI"),
        ("time", "TIME"),
        ("memory|usage", "MEMORY USAGE"),
    ],
)
def test_check_warns_of_an_optional_command(permissions: Permissions, command: str, subject: str) -> None:
    permissions.without(command)
    found = findings(permissions)
    assert found[f"command {subject}"] == "warn"
    assert "fail" not in found.values()


@pytest.mark.parametrize("refused", [("multi",), ("exec",), ("multi", "exec")])
def test_without_transactions_every_number_is_still_read(
    permissions: Permissions, least: Inspector, refused: tuple[str, ...]
) -> None:
    permissions.without(*refused)
    for _ in range(2):
        snapshot = least.snapshot()
        assert snapshot.failures == {}
        assert values(queue_of(least)) == FILLED


def test_without_time_ages_are_taken_by_our_own_clock(permissions: Permissions, least: Inspector) -> None:
    permissions.without("time")
    assert_shows_all(least)


def test_without_memory_usage_only_that_is_unknown(permissions: Permissions, least: Inspector) -> None:
    permissions.without("memory|usage")
    assert least.snapshot().failures == {}
    info = least.queue_info("filled")
    assert (info.memory_usage, values(info)) == (None, FILLED)
    assert least.memory_usage() == {"filled": None, "empty": None}


# Command -> the fields of a snapshot's queue that cannot be known without it.
LOST: dict[str, set[str]] = {
    "scard": {"groups", "aggregating", "size"},
    "llen": {"pending", "active", "size", "latency", "active_without_lease"},
    "lrange": {"latency"},
    "zcard": {
        "scheduled", "retry", "archived", "completed", "aggregating", "size", "active_without_lease",
    },
    "zcount": set(),
    "zrange": {"lease_expired", "overdue_scheduled", "overdue_retry"},
    "zrangebyscore": set(),
    "get": set(),
    "mget": {"processed", "failed", "processed_total", "failed_total"},
    "exists": {"paused"},
    "hget": {"latency"},
    "hvals": set(),
}  # fmt: skip


@pytest.mark.parametrize("command", LOST)
def test_a_refused_command_costs_its_own_fields_only(permissions: Permissions, least: Inspector, command: str) -> None:
    permissions.without(command)
    snapshot = least.snapshot()
    info = next(info for info in snapshot.queues if info.queue == "filled")
    expected = {name: None if name in LOST[command] else value for name, value in FILLED.items()}
    assert values(info) == expected
    assert (info.latency is None) == ("latency" in LOST[command])
    assert set(snapshot.failures) <= {"permission", "no_pending_since"}
    if command != "zcount":  # asked only when a lease has run out
        assert snapshot.failures["permission"] > 0


def test_without_zcount_the_number_of_expired_leases_is_unknown(
    permissions: Permissions, least: Inspector, client: redis.Redis
) -> None:
    client.zadd(keys.queue_key("filled", "lease"), {"t4": 1})
    permissions.without("zcount")
    info = queue_of(least)
    assert values(info) == FILLED | {"lease_expired": None}


def test_without_get_counters_that_are_absent_are_unknown(permissions: Permissions, least: Inspector) -> None:
    permissions.without("get")
    empty = queue_of(least, "empty")
    assert (empty.processed, empty.failed, empty.processed_total, empty.failed_total) == (None,) * 4
    assert values(queue_of(least)) == FILLED


def test_without_smembers_nothing_can_be_read(permissions: Permissions, least: Inspector) -> None:
    permissions.without("smembers")
    with pytest.raises(ReadError) as refused:
        least.snapshot()
    assert refused.value.reason == "permission"


def test_without_zrangebyscore_servers_and_schedulers_are_unknown(permissions: Permissions, least: Inspector) -> None:
    permissions.without("zrangebyscore")
    snapshot = least.snapshot()
    assert (snapshot.servers, snapshot.scheduler_entries) == (None, None)
    with pytest.raises(ReadError, match="asynq:servers cannot be read"):
        least.servers()


def test_without_hvals_servers_are_there_without_their_workers(permissions: Permissions, least: Inspector) -> None:
    permissions.without("hvals")
    snapshot = least.snapshot()
    assert snapshot.servers is not None
    assert [(server.info, server.active_workers) for server in snapshot.servers] == [(SERVER, None)]
    assert snapshot.failures == {"permission": 1}


@pytest.mark.parametrize(
    "ask",
    [
        lambda inspector: inspector.queue_info("filled"),
        lambda inspector: inspector.tasks("filled", "pending"),
        lambda inspector: inspector.history("filled", 1),
    ],
)
def test_without_sismember_questions_about_one_queue_are_refused(
    permissions: Permissions, least: Inspector, ask: Callable[[Inspector], Any]
) -> None:
    permissions.without("sismember")
    assert least.snapshot().failures == {}
    with pytest.raises(ReadError) as refused:
        ask(least)
    assert refused.value.reason == "permission"


def test_without_zscore_active_tasks_are_listed_and_none_is_called_orphaned(
    permissions: Permissions, least: Inspector, client: redis.Redis
) -> None:
    client.zadd(keys.queue_key("filled", "lease"), {"t4": 1})
    permissions.without("zscore")
    [active] = least.tasks("filled", "active")
    assert (active.id, active.type, active.is_orphaned) == ("t4", "type:t4", False)


def test_a_key_pattern_that_leaves_a_queue_out_costs_that_queue_only(
    permissions: Permissions, least: Inspector, client: redis.Redis
) -> None:
    client.sadd(keys.QUEUES, "hidden")
    permissions.allow(*LEAST)
    permissions.admin.execute_command(
        "ACL", "SETUSER", "least", "resetkeys", "~asynq:queues", "~asynq:servers*", "~asynq:workers*",
        "~asynq:schedulers*", "~asynq:{filled}:*", "~asynq:{empty}:*",
    )  # fmt: skip
    snapshot = least.snapshot()
    by_name = {info.queue: info for info in snapshot.queues}
    assert values(by_name["filled"]) == FILLED
    assert set(values(by_name["hidden"]).values()) == {None}
    assert set(snapshot.failures) == {"permission"}
