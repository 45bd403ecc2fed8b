"""Asynq's protobuf messages: task, server, worker, scheduler entry, scheduler event.

The schema is built here from the field numbers of asynq v0.26 instead of being generated, so that no
generated file has to match the installed protobuf runtime. Encoding writes fields in number order and omits
zero values, byte for byte as Go does.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, timestamp_pb2
from google.protobuf.message import DecodeError, Message

from otel_queue.errors import MessageError

# Go's zero time (year 1): how a scheduler says that an entry has never run.
_GO_ZERO_TIME_SECONDS: Final = -62135596800

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS: Final = {
    "string": _Field.TYPE_STRING,
    "bytes": _Field.TYPE_BYTES,
    "int32": _Field.TYPE_INT32,
    "int64": _Field.TYPE_INT64,
    "bool": _Field.TYPE_BOOL,
}

# message -> field number -> (name, type). `map<string,T>`, `repeated string` and `time` as in a .proto file.
_SCHEMA: Final[Mapping[str, Mapping[int, tuple[str, str]]]] = {
    "TaskMessage": {
        1: ("type", "string"),
        2: ("payload", "bytes"),
        3: ("id", "string"),
        4: ("queue", "string"),
        5: ("retry", "int32"),
        6: ("retried", "int32"),
        7: ("error_msg", "string"),
        8: ("timeout", "int64"),
        9: ("deadline", "int64"),
        10: ("unique_key", "string"),
        11: ("last_failed_at", "int64"),
        12: ("retention", "int64"),
        13: ("completed_at", "int64"),
        14: ("group_key", "string"),
        15: ("headers", "map<string,string>"),
    },
    "ServerInfo": {
        1: ("host", "string"),
        2: ("pid", "int32"),
        3: ("server_id", "string"),
        4: ("concurrency", "int32"),
        5: ("queues", "map<string,int32>"),
        6: ("strict_priority", "bool"),
        7: ("status", "string"),
        8: ("start_time", "time"),
        9: ("active_worker_count", "int32"),
    },
    "WorkerInfo": {
        1: ("host", "string"),
        2: ("pid", "int32"),
        3: ("server_id", "string"),
        4: ("task_id", "string"),
        5: ("task_type", "string"),
        6: ("task_payload", "bytes"),
        7: ("queue", "string"),
        8: ("start_time", "time"),
        9: ("deadline", "time"),
    },
    "SchedulerEntry": {
        1: ("id", "string"),
        2: ("spec", "string"),
        3: ("task_type", "string"),
        4: ("task_payload", "bytes"),
        5: ("enqueue_options", "repeated string"),
        6: ("next_enqueue_time", "time"),
        7: ("prev_enqueue_time", "time"),
    },
    "SchedulerEnqueueEvent": {
        1: ("task_id", "string"),
        2: ("enqueue_time", "time"),
    },
}


def _add_field(message: descriptor_pb2.DescriptorProto, number: int, name: str, kind: str) -> None:
    added = message.field.add(name=name, number=number, label=_Field.LABEL_OPTIONAL)
    if kind == "time":
        added.type, added.type_name = _Field.TYPE_MESSAGE, ".google.protobuf.Timestamp"
    elif kind.startswith("repeated "):
        added.type, added.label = _SCALARS[kind.removeprefix("repeated ")], _Field.LABEL_REPEATED
    elif kind.startswith("map<string,"):
        entry = message.nested_type.add(name=name.capitalize() + "Entry")
        entry.options.map_entry = True
        _add_field(entry, 1, "key", "string")
        _add_field(entry, 2, "value", kind.removeprefix("map<string,").removesuffix(">"))
        added.type, added.label = _Field.TYPE_MESSAGE, _Field.LABEL_REPEATED
        added.type_name = f".asynq.{message.name}.{entry.name}"
    else:
        added.type = _SCALARS[kind]


def _message_classes() -> Mapping[str, type[Message]]:
    file = descriptor_pb2.FileDescriptorProto(name="asynq.proto", package="asynq", syntax="proto3")
    file.dependency.append("google/protobuf/timestamp.proto")
    for name, fields in _SCHEMA.items():
        message = file.message_type.add(name=name)
        for number, (field_name, kind) in fields.items():
            _add_field(message, number, field_name, kind)
    # A pool of our own: another library in the process may know asynq's messages too.
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(timestamp_pb2.DESCRIPTOR.serialized_pb)
    pool.AddSerializedFile(file.SerializeToString())
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"asynq.{name}")) for name in _SCHEMA}


_CLASSES: Final = _message_classes()


@dataclass(frozen=True, slots=True)
class TaskMessage:
    """One task as asynq stores it in the `msg` field of its hash.

    `retry` is the maximum number of retries, `retried` how many there were. `timeout` and `retention` are
    whole seconds, `deadline`, `last_failed_at` and `completed_at` Unix seconds; 0 means none or never.
    """

    type: str
    payload: bytes = b""
    id: str = ""
    queue: str = "default"
    retry: int = 25
    retried: int = 0
    error_msg: str = ""
    timeout: int = 0
    deadline: int = 0
    unique_key: str = ""
    last_failed_at: int = 0
    retention: int = 0
    completed_at: int = 0
    group_key: str = ""
    headers: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """One asynq server as its heartbeat describes it.

    `queues` maps name to priority; `start_time` is in Unix seconds.
    """

    host: str
    pid: int
    server_id: str
    concurrency: int
    queues: Mapping[str, int]
    strict_priority: bool = False
    status: str = "active"
    start_time: float | None = None
    active_worker_count: int = 0


@dataclass(frozen=True, slots=True)
class WorkerInfo:
    """One busy worker, up to five seconds old; times are Unix seconds."""

    host: str
    pid: int
    server_id: str
    task_id: str
    task_type: str
    task_payload: bytes
    queue: str
    start_time: float | None = None
    deadline: float | None = None


@dataclass(frozen=True, slots=True)
class SchedulerEntry:
    """One periodic task; `prev_enqueue_time` is None until it has run. Options are asynq's printed forms."""

    id: str
    spec: str
    task_type: str
    task_payload: bytes = b""
    enqueue_options: tuple[str, ...] = ()
    next_enqueue_time: float | None = None
    prev_enqueue_time: float | None = None


@dataclass(frozen=True, slots=True)
class SchedulerEnqueueEvent:
    """One run of a periodic task; `enqueue_time` in Unix seconds."""

    task_id: str
    enqueue_time: float | None = None


def _decode(name: str, data: bytes) -> Any:
    try:
        return _CLASSES[name].FromString(data)
    except (DecodeError, UnicodeDecodeError) as error:
        raise MessageError(f"{len(data)} bytes are not an asynq {name}: {error}") from error


def _seconds(message: Any, name: str) -> float | None:
    """Unix seconds of a Timestamp field; None when it is absent or Go's zero time."""
    if not message.HasField(name):
        return None
    stamp = getattr(message, name)
    if stamp.seconds == _GO_ZERO_TIME_SECONDS:
        return None
    return float(stamp.seconds) + float(stamp.nanos) / 1e9


def _set_time(message: Any, name: str, seconds: float | None) -> None:
    stamp = getattr(message, name)
    if seconds is None:
        stamp.seconds = _GO_ZERO_TIME_SECONDS
    else:
        stamp.FromDatetime(datetime.fromtimestamp(seconds, tz=UTC))


def _encode(name: str, values: Mapping[str, Any], times: Mapping[str, float | None] | None = None) -> bytes:
    message: Any = _CLASSES[name](**values)
    for key, seconds in (times or {}).items():
        _set_time(message, key, seconds)
    encoded: bytes = message.SerializeToString(deterministic=True)
    return encoded


_TASK_FIELDS: Final = tuple(name for name, _ in _SCHEMA["TaskMessage"].values() if name != "headers")


def decode_task_message(data: bytes) -> TaskMessage:
    """The task in `data`; raises MessageError for anything that is not a TaskMessage."""
    message = _decode("TaskMessage", data)
    return TaskMessage(headers=dict(message.headers), **{name: getattr(message, name) for name in _TASK_FIELDS})


def encode_task_message(task: TaskMessage) -> bytes:
    """The bytes that Go's encoder writes for the same task (map entries sorted by key)."""
    values = {name: getattr(task, name) for name in _TASK_FIELDS}
    return _encode("TaskMessage", values | {"headers": dict(task.headers)})


def decode_server_info(data: bytes) -> ServerInfo:
    """The server in `data`; raises MessageError."""
    message = _decode("ServerInfo", data)
    return ServerInfo(
        host=message.host,
        pid=message.pid,
        server_id=message.server_id,
        concurrency=message.concurrency,
        queues=dict(message.queues),
        strict_priority=message.strict_priority,
        status=message.status,
        start_time=_seconds(message, "start_time"),
        active_worker_count=message.active_worker_count,
    )


def encode_server_info(server: ServerInfo) -> bytes:
    """The heartbeat value of a server."""
    return _encode(
        "ServerInfo",
        {
            "host": server.host,
            "pid": server.pid,
            "server_id": server.server_id,
            "concurrency": server.concurrency,
            "queues": dict(server.queues),
            "strict_priority": server.strict_priority,
            "status": server.status,
            "active_worker_count": server.active_worker_count,
        },
        {"start_time": server.start_time},
    )


def decode_worker_info(data: bytes) -> WorkerInfo:
    """The busy worker in `data`; raises MessageError."""
    message = _decode("WorkerInfo", data)
    return WorkerInfo(
        host=message.host,
        pid=message.pid,
        server_id=message.server_id,
        task_id=message.task_id,
        task_type=message.task_type,
        task_payload=message.task_payload,
        queue=message.queue,
        start_time=_seconds(message, "start_time"),
        deadline=_seconds(message, "deadline"),
    )


def encode_worker_info(worker: WorkerInfo) -> bytes:
    """The value of a busy worker in its server's workers hash."""
    return _encode(
        "WorkerInfo",
        {
            "host": worker.host,
            "pid": worker.pid,
            "server_id": worker.server_id,
            "task_id": worker.task_id,
            "task_type": worker.task_type,
            "task_payload": worker.task_payload,
            "queue": worker.queue,
        },
        {"start_time": worker.start_time, "deadline": worker.deadline},
    )


def decode_scheduler_entry(data: bytes) -> SchedulerEntry:
    """The periodic task in `data`; raises MessageError."""
    message = _decode("SchedulerEntry", data)
    return SchedulerEntry(
        id=message.id,
        spec=message.spec,
        task_type=message.task_type,
        task_payload=message.task_payload,
        enqueue_options=tuple(message.enqueue_options),
        next_enqueue_time=_seconds(message, "next_enqueue_time"),
        prev_enqueue_time=_seconds(message, "prev_enqueue_time"),
    )


def encode_scheduler_entry(entry: SchedulerEntry) -> bytes:
    """One element of a scheduler's entry list."""
    return _encode(
        "SchedulerEntry",
        {
            "id": entry.id,
            "spec": entry.spec,
            "task_type": entry.task_type,
            "task_payload": entry.task_payload,
            "enqueue_options": list(entry.enqueue_options),
        },
        {"next_enqueue_time": entry.next_enqueue_time, "prev_enqueue_time": entry.prev_enqueue_time},
    )


def encode_scheduler_enqueue_event(event: SchedulerEnqueueEvent) -> bytes:
    """One member of a scheduler entry's history."""
    return _encode("SchedulerEnqueueEvent", {"task_id": event.task_id}, {"enqueue_time": event.enqueue_time})
