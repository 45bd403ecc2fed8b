"""A Redis that answers every command plausibly, without holding anything: what mutation starts from."""

import time
from collections.abc import Callable, Sequence
from typing import Any, Final

import hiredis

from otel_queue.asynq import keys
from otel_queue.asynq.message import (
    encode_scheduler_entry,
    encode_server_info,
    encode_task_message,
    encode_worker_info,
)
from tests.inspector.filled import ENTRIES, SERVER, WORKER, task

QUEUES: Final = (b"q1", b"q2", b"\xff:{odd}")
_SERVER_KEY: Final = keys.server(SERVER.host, SERVER.pid, SERVER.server_id)
_SCHEDULER_KEY: Final = keys.scheduler("host-a", 7, "scheduler-1")
_MESSAGE: Final = encode_task_message(task("t", headers={"k": "v"}, group_key="G"))
_SERVER: Final = encode_server_info(SERVER)
_WORKER: Final = encode_worker_info(WORKER)
_ENTRIES: Final = [encode_scheduler_entry(entry) for entry in ENTRIES]


def _ranged(words: Sequence[bytes]) -> Any:
    key = words[1]
    members = [b"a", b"b"]
    if key == keys.SERVERS:
        members = [_SERVER_KEY]
    elif key == keys.SCHEDULERS:
        members = [_SCHEDULER_KEY]
    if words[-1] != b"WITHSCORES":
        return members
    return [part for member in members for part in (member, b"%d" % (time.time() + 100))]


def _listed(words: Sequence[bytes]) -> Any:
    return list(_ENTRIES) if words[1] == _SCHEDULER_KEY else [b"a", b"b", b"c"]


_ANSWERS: Final[dict[bytes, Callable[[Sequence[bytes]], Any]]] = {
    b"SMEMBERS": lambda words: list(QUEUES) if words[1] == keys.QUEUES else [b"G", b"H"],
    b"SISMEMBER": lambda words: 1,
    b"SCARD": lambda words: 2,
    b"LLEN": lambda words: 3,
    b"ZCARD": lambda words: 2,
    b"ZCOUNT": lambda words: 1,
    b"ZRANGE": _ranged,
    b"ZRANGEBYSCORE": _ranged,
    b"ZSCORE": lambda words: b"1700000000",
    b"LRANGE": _listed,
    b"GET": lambda words: _SERVER if words[1] == _SERVER_KEY else b"17",
    b"MGET": lambda words: [b"17", None, b"1700", b"0"],
    b"EXISTS": lambda words: 0,
    b"HGET": lambda words: _MESSAGE if words[2] == b"msg" else b"%d" % (time.time_ns() - 5 * 10**9),
    b"HVALS": lambda words: [_WORKER],
    b"MEMORY": lambda words: 168,
    b"TIME": lambda words: [b"%d" % time.time(), b"123456"],
    b"PING": lambda words: b"PONG",
    b"AUTH": lambda words: b"OK",
    b"SELECT": lambda words: b"OK",
}


def parse(packed: bytes) -> list[list[bytes]]:
    """The commands in a request."""
    reader: Any = hiredis.Reader()
    reader.feed(packed)
    commands = []
    while (words := reader.gets()) is not False:
        commands.append(words)
    return commands


def answer(commands: Sequence[Sequence[bytes]]) -> list[Any]:
    """One reply to each command; a transaction's replies come with its EXEC."""
    replies: list[Any] = []
    queued: list[Any] | None = None
    for words in commands:
        if words[0] == b"MULTI":
            queued = []
            replies.append(b"OK")
        elif words[0] == b"EXEC":
            replies.append(queued)
            queued = None
        elif queued is None:
            replies.append(_ANSWERS[words[0]](words))
        else:
            queued.append(_ANSWERS[words[0]](words))
            replies.append(b"QUEUED")
    return replies
