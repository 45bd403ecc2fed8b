"""Probes an installation: each thing that serving needs is tried for real, and each finding says what to do."""

import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Final, Literal

from otel_queue.asynq import keys
from otel_queue.catalog import ATTEMPTS
from otel_queue.config import Config
from otel_queue.errors import ConfigError, ReadError
from otel_queue.ledger.contract import read_contract
from otel_queue.ledger.keys import Keys
from otel_queue.plural import number_of
from otel_queue.redis_client import ErrorReply, RedisLink, Reply, Rounds, ask, connect, request, time_us

_Word = bytes | str | int
_Command = tuple[str, *tuple[_Word, ...]]

_TIMEOUT_SECONDS: Final = 5.0
_MOST_SKEW_SECONDS: Final = 2.0
# A queue that nobody has: the probes read its keys, find nothing and create nothing.
_QUEUE: Final = "otel-queue-check"
_PENDING: Final = keys.queue_key(_QUEUE, "pending")
_LEASE: Final = keys.queue_key(_QUEUE, "lease")
_TASK: Final = keys.task(_QUEUE, "none")

_NEEDED: Final[tuple[_Command, ...]] = (
    ("SMEMBERS", keys.queue_key(_QUEUE, "groups")),
    ("SISMEMBER", keys.queue_key(_QUEUE, "groups"), "none"),
    ("SCARD", keys.queue_key(_QUEUE, "groups")),
    ("LLEN", _PENDING),
    ("LRANGE", _PENDING, -1, -1),
    ("ZCARD", _LEASE),
    ("ZCOUNT", _LEASE, "-inf", 0),
    ("ZSCORE", _LEASE, "none"),
    ("ZRANGE", _LEASE, 0, 0, "WITHSCORES"),
    ("ZRANGEBYSCORE", _LEASE, 0, "+inf", "WITHSCORES"),
    ("GET", keys.processed(_QUEUE)),
    ("MGET", keys.processed(_QUEUE), keys.failed(_QUEUE)),
    ("EXISTS", keys.queue_key(_QUEUE, "paused")),
    ("HGET", _TASK, "pending_since"),
    ("HVALS", _TASK),
)
# Command -> what is lost without it.
_OPTIONAL: Final[tuple[tuple[str, _Command, str], ...]] = (
    ("TIME", ("TIME",), "ages are then taken by this machine's clock"),
    ("MEMORY USAGE", ("MEMORY", "USAGE", _TASK), "asynq_queue_memory_usage_approx_bytes is then absent"),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `unreachable` marks what could not be reached at all."""

    status: Literal["ok", "warn", "fail"]
    subject: str
    detail: str
    advice: str = ""
    unreachable: bool = False


def examine(config: Config) -> list[Finding]:
    """All findings, in the order in which things would fail. Reads only; never raises for a fault it finds."""
    findings = [Finding("ok", "configuration", "every setting is valid")]
    findings += [Finding("warn", remark.variable, remark.said, remark.advice) for remark in config.remarks_of_serve]
    findings += [*_attempts(config), *_web(config)]
    link = connect(config.redis)
    try:
        findings += _redis(link, str(config.redis.location))
    finally:
        link.close()
    if config.reads("ledger"):
        link = connect(config.ledger_redis)
        try:
            findings += _ledger(link, config)
        finally:
            link.close()
    findings += [*_postgres(config), *_otlp(config)]
    return findings


def _attempts(config: Config) -> Iterator[Finding]:
    if config.sources_of(ATTEMPTS).source == "postgres" and config.postgres.parity == "legacy":
        detail = f"{ATTEMPTS} has no source: the gateway never exported it, so there are no legacy numbers of it"
        advice = f"set domain.metrics.{ATTEMPTS}.source to ledger, or to none; or postgres.parity to corrected"
        yield Finding("warn", "attempts", detail, advice)


def _web(config: Config) -> Iterator[Finding]:
    from otel_queue.server.web_config import read_web_config

    file = config.server.web_config_file
    if file is None:
        return
    try:
        web = read_web_config(file)
    except ConfigError as error:
        for fault in error.faults:
            yield Finding("fail", "web config", fault, "mend the file; serve will not start with it")
    else:
        tls = "TLS" if web.tls else "no TLS"
        yield Finding("ok", "web config", f"{file}: {tls}, {number_of(len(web.basic_auth_users), 'user')}")


def _redis(link: RedisLink, location: str) -> Iterator[Finding]:
    try:
        yield from _queues(link, location)
        yield from _permissions(link)
        yield from _clock(link)
        yield from _eviction(link)
    except ReadError as error:
        yield Finding("fail", "redis", str(error), _REACH_ADVICE.get(error.reason, ""), unreachable=True)


def _queues(link: RedisLink, location: str) -> Iterator[Finding]:
    [queues] = _ask(link, [("SMEMBERS", keys.QUEUES)])
    if isinstance(queues, ErrorReply):
        yield Finding("fail", "redis", f"{location}: SMEMBERS asynq:queues: {queues}", _permission_advice("smembers"))
    elif not queues:
        yield Finding("warn", "redis", f"{location} answers, but asynq:queues is empty",
                      "check the database number, or wait for the first task")  # fmt: skip
    else:
        yield Finding("ok", "redis", f"{location} answers and lists {number_of(len(queues), 'queue')}")


_REACH_ADVICE: Final = {
    "auth": "check redis.username, redis.password or redis.password_file",
    "connection": "check redis.url, that Redis runs there, and the network between",
    "timeout": "check the network, or whether Redis is stopped or overloaded",
    "loading": "Redis is loading its data; wait",
    "master_down": "check the replication of this replica",
    "cluster_down": "check `redis-cli cluster info`",
}


def _ask(link: RedisLink, commands: list[_Command], key: bytes = keys.QUEUES) -> list[Reply]:
    return ask(link, [request(key, commands)], _TIMEOUT_SECONDS)[0]


def _permission_advice(command: str) -> str:
    return f"ACL SETUSER <user> +{command.lower().replace(' ', '|')} %R~asynq:*   (before Redis 7: ~asynq:*)"


def _permissions(link: RedisLink) -> Iterator[Finding]:
    replies = _ask(link, list(_NEEDED), _PENDING)
    refused = [
        (words[0], reply) for words, reply in zip(_NEEDED, replies, strict=True) if isinstance(reply, ErrorReply)
    ]
    for word, reply in refused:
        yield Finding("fail", f"command {word}", str(reply), _permission_advice(word))
    if not refused:
        yield Finding("ok", "commands", f"all {len(_NEEDED)} commands that reading needs are permitted")
    for name, words, loss in _OPTIONAL:
        [reply] = _ask(link, [words], _TASK)
        if isinstance(reply, ErrorReply):
            yield Finding("warn", f"command {name}", f"{reply}; {loss}", _permission_advice(name))
        else:
            yield Finding("ok", f"command {name}", "permitted")
    replies = _ask(link, [("MULTI",), ("LLEN", _PENDING), ("EXEC",)], _PENDING)
    refusal = next((reply for reply in replies if isinstance(reply, ErrorReply)), None)
    if refusal is not None:
        loss = "a task that moves while its queue is read may then be counted twice or not at all"
        yield Finding("warn", "command MULTI", f"{refusal}; {loss}", _permission_advice("multi") + " +exec")
    else:
        yield Finding("ok", "command MULTI", "permitted: each queue is read in one transaction")


def _clock(link: RedisLink) -> Iterator[Finding]:
    before = time.time()
    [reply] = _ask(link, [("TIME",)])
    if isinstance(reply, ErrorReply):
        return  # told with the commands
    skew = time_us(reply) / 1e6 - (before + time.time()) / 2
    detail = f"Redis is {abs(skew):.3f} s {'ahead of' if skew > 0 else 'behind'} this machine"
    if abs(skew) > _MOST_SKEW_SECONDS:
        yield Finding("warn", "clock", detail, "ages use Redis time; let NTP set both clocks, and the workers'")
    else:
        yield Finding("ok", "clock", detail)


def _eviction(link: RedisLink) -> Iterator[Finding]:
    [reply] = _ask(link, [("INFO", "memory")])
    if isinstance(reply, ErrorReply):
        yield Finding("warn", "eviction policy", f"unknown: {reply}", "look at `CONFIG GET maxmemory-policy` yourself")
        return
    lines = dict(line.split(":", 1) for line in reply.decode(errors="replace").splitlines() if ":" in line)
    policy = lines.get("maxmemory_policy", "unknown")
    if policy == "noeviction":
        yield Finding("ok", "eviction policy", "noeviction")
    else:
        detail = f"{policy}: at maxmemory Redis drops task hashes, leases and locks"
        yield Finding("warn", "eviction policy", detail, "CONFIG SET maxmemory-policy noeviction")


def _ledger(link: RedisLink, config: Config) -> Iterator[Finding]:
    try:
        yield from _contract(link, config)
        for finding in _eviction(link):
            yield replace(finding, subject=f"ledger {finding.subject}")
        yield _ledger_file(link)
    except ReadError as error:
        yield Finding("fail", "ledger", str(error), _REACH_ADVICE.get(error.reason, ""), unreachable=True)
        return
    if config.ledger.url is None and not config.ledger.memory_limit_bytes:
        advice = "set ledger.url to a Redis of its own, or ledger.memory_limit_bytes"
        yield Finding("warn", "ledger memory", "the ledger shares the queues' Redis and may fill it", advice)


def _ledger_file(link: RedisLink) -> Finding:
    """Whether the ledger outlives a crash of its Redis, and is whole after one."""
    subject = "ledger file"
    info, setting = _ask(link, [("INFO", "persistence"), ("CONFIG", "GET", "aof-load-truncated")])
    refusal = next((reply for reply in (info, setting) if isinstance(reply, ErrorReply)), None)
    if not isinstance(info, ErrorReply) and b"aof_enabled:0" in info:
        detail = "appendonly is off: a crash takes what was written since the last snapshot"
        return Finding(
            "warn", subject, detail, "CONFIG SET appendonly yes, and appendfsync always; see docs/reliability.md"
        )
    if refusal is not None:
        return Finding("warn", subject, f"unknown: {refusal}", "look at `CONFIG GET aof-load-truncated` yourself")
    if setting[-1:] == [b"yes"]:
        detail = "Redis starts on a torn append-only file, and executes half a record at the start after"
        return Finding("warn", subject, detail, "CONFIG SET aof-load-truncated no; see docs/reliability.md")
    return Finding("ok", subject, "append-only, and a torn one is not started on")


def _contract(link: RedisLink, config: Config) -> Iterator[Finding]:
    location, keys = str(config.ledger_redis.location), Keys(config.ledger.namespace)
    try:
        rounds = Rounds(link, time.monotonic() + _TIMEOUT_SECONDS, clock_key=keys.contract)
        [contract] = rounds.run([read_contract(keys)])
    except ReadError as error:
        if error.reason in _REACH_ADVICE:
            raise
        advice = "otel-queue ledger init, if it is new; if it was lost, see docs/runbook.md"
        yield Finding("fail", "ledger", f"{location}: {error}", advice)
    else:
        days = number_of(contract.rules[-1].track_days, "day")
        yield Finding("ok", "ledger", f"{location}: begun; deliveries are tracked for {days}")


def _postgres(config: Config) -> Iterator[Finding]:
    dsn, postgres = config.postgres.dsn, config.postgres
    if dsn is None or not config.reads("postgres"):
        return
    try:  # psycopg is an extra
        from otel_queue.postgres.aggregations import statements
        from otel_queue.postgres.database import Database
        from otel_queue.postgres.dsn import Dsn
        from otel_queue.postgres.source import reckoning_of

        reckoning = reckoning_of(postgres.parity, postgres.use_snapshot_tables)
        database = Database(Dsn(dsn), statement_timeout_seconds=postgres.statement_timeout_seconds)
        with database.reading() as reading:
            for name in statements(reckoning):
                reading.plan(name)
            lag = reading.lag_seconds
    except ConfigError as error:
        yield Finding("fail", "postgres", "; ".join(error.faults))
    except ReadError as error:
        unreachable = error.reason in ("connection", "timeout", "starting", "too_many_connections")
        yield Finding("fail", "postgres", f"{error.reason}: {error}", "see docs/postgres.md", unreachable)
    else:
        behind = f", a replica {lag:.0f} s behind" if lag else ""
        yield Finding("ok", "postgres", f"{database}: every {reckoning} statement can be run{behind}")


def _otlp(config: Config) -> Iterator[Finding]:
    if not config.pushes:
        yield Finding("ok", "otlp", "off: neither otlp.enabled nor OpenTelemetry's variables ask for it")
        return
    from opentelemetry.sdk.metrics.export import MetricExportResult, MetricsData

    from otel_queue.export.otlp import otlp_exporter

    settings = config.opentelemetry
    protocol = settings.protocol
    said = _LastMessage()
    logger = logging.getLogger("opentelemetry.exporter.otlp")
    logger.addHandler(said)
    try:
        # In batches nothing would be sent of nothing.
        timeout = min(settings.timeout_seconds, _OTLP_SECONDS)
        exporter = otlp_exporter(replace(settings, timeout_seconds=timeout), most_points=None)
        result = exporter.export(MetricsData(resource_metrics=[]))
        exporter.shutdown()
    except Exception as error:
        yield Finding("fail", "otlp", f"{protocol}: {type(error).__name__}: {error}", _OTLP_ADVICE)
        return
    finally:
        logger.removeHandler(said)
    if result is MetricExportResult.SUCCESS:
        yield Finding("ok", "otlp", f"{protocol}: an empty export was accepted")
    else:
        yield Finding("fail", "otlp", f"{protocol}: {said.text or 'the export was not accepted'}", _OTLP_ADVICE, True)


_OTLP_SECONDS: Final = 10.0
_OTLP_ADVICE: Final = (
    "check OTEL_EXPORTER_OTLP_ENDPOINT, its scheme and port (4318 http/protobuf, 4317 grpc) and the protocol"
)


class _LastMessage(logging.Handler):
    """Keeps the exporter's last complaint: it returns a bare failure and logs the cause."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.text = ""

    def emit(self, record: Any) -> None:
        self.text = record.getMessage()
