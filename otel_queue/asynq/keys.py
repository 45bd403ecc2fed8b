"""Asynq's keys in Redis. All keys of a queue share the hash tag {queue}; the global ones do not.

Names are bytes as stored: asynq does not validate queue, group or task names, so they may hold `:`, braces,
spaces or anything that is not UTF-8.
"""

import re
from typing import Final

QUEUES: Final = b"asynq:queues"
SERVERS: Final = b"asynq:servers"
WORKERS: Final = b"asynq:workers"
SCHEDULERS: Final = b"asynq:schedulers"
_SERVER_PREFIX: Final = b"asynq:servers:"
_WORKERS_PREFIX: Final = b"asynq:workers:"

Name = bytes | str

# What a byte that is not UTF-8 looks like when it is shown.
_ESCAPE: Final = re.compile(rb"\\x[89a-f][0-9a-f]")


def as_bytes(name: Name) -> bytes:
    """The name as Redis stores it; bytes of a command line that are not UTF-8 stay as they are."""
    return name.encode("utf-8", "surrogateescape") if isinstance(name, str) else name


def display(name: bytes) -> str:
    """The name as text that is always valid UTF-8, and no other name's: bytes that are not appear as backslash escapes.

    Backslashes are doubled in such a name, and in one that spells such an escape; any other name is as it is.
    """
    try:
        shown = name.decode()
    except UnicodeDecodeError:
        return name.replace(b"\\", b"\\\\").decode("utf-8", "backslashreplace")
    return shown.replace("\\", "\\\\") if _ESCAPE.search(name) else shown


def queue_key(queue: Name, suffix: str) -> bytes:
    """A key of one queue, e.g. `asynq:{default}:pending` for suffix "pending"."""
    return b"asynq:{%b}:%b" % (as_bytes(queue), suffix.encode())


def task(queue: Name, task_id: Name) -> bytes:
    """HASH: one task."""
    return b"asynq:{%b}:t:%b" % (as_bytes(queue), as_bytes(task_id))


def group(queue: Name, name: Name) -> bytes:
    """ZSET: the tasks of a group, by the second in which they joined."""
    return b"asynq:{%b}:g:%b" % (as_bytes(queue), as_bytes(name))


def aggregation_set(queue: Name, name: Name, set_id: str) -> bytes:
    """ZSET: tasks of a group that are being aggregated."""
    return group(queue, name) + b":" + set_id.encode()


def processed(queue: Name, day: str | None = None) -> bytes:
    """STRING: tasks processed on a UTC day (YYYY-MM-DD), or ever."""
    return queue_key(queue, "processed" if day is None else f"processed:{day}")


def failed(queue: Name, day: str | None = None) -> bytes:
    """STRING: tasks failed on a UTC day (YYYY-MM-DD), or ever."""
    return queue_key(queue, "failed" if day is None else f"failed:{day}")


def unique(queue: Name, task_type: str, payload_md5: str) -> bytes:
    """STRING: the lock of a unique task; its value is the ID of the holder."""
    return queue_key(queue, f"unique:{task_type}:{payload_md5}")


def server(host: str, pid: int, server_id: str) -> bytes:
    """STRING: a server's heartbeat."""
    return _SERVER_PREFIX + f"{{{host}:{pid}:{server_id}}}".encode()


def workers(host: str, pid: int, server_id: str) -> bytes:
    """HASH: the busy workers of a server."""
    return _WORKERS_PREFIX + f"{{{host}:{pid}:{server_id}}}".encode()


def workers_of(server_key: bytes) -> bytes:
    """HASH: the busy workers of the server whose heartbeat is at `server_key`; in the same slot."""
    return _WORKERS_PREFIX + server_key.removeprefix(_SERVER_PREFIX)


def scheduler(host: str, pid: int, scheduler_id: str) -> bytes:
    """LIST: the entries of a scheduler."""
    return b"asynq:schedulers:" + f"{{{host}:{pid}:{scheduler_id}}}".encode()


def scheduler_history(entry_id: str) -> bytes:
    """ZSET: when a periodic task was enqueued."""
    return b"asynq:scheduler_history:" + entry_id.encode()
