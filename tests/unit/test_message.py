import pytest

from otel_queue.asynq.message import (
    SchedulerEnqueueEvent,
    SchedulerEntry,
    ServerInfo,
    TaskMessage,
    WorkerInfo,
    decode_scheduler_entry,
    decode_server_info,
    decode_task_message,
    decode_worker_info,
    encode_scheduler_enqueue_event,
    encode_scheduler_entry,
    encode_server_info,
    encode_task_message,
    encode_worker_info,
)
from otel_queue.errors import MessageError

# Captured from asynq v0.26.0's own encoder.
GOLDEN = bytes.fromhex("0a026f6b120270311a027431220764656661756c74281940880e7a060a016b120176")
GOLDEN_TASK = TaskMessage("ok", b"p1", "t1", timeout=1800, headers={"k": "v"})


def test_a_task_is_written_byte_for_byte_as_go_writes_it() -> None:
    assert encode_task_message(GOLDEN_TASK) == GOLDEN


def test_a_task_written_by_go_is_read() -> None:
    assert decode_task_message(GOLDEN) == GOLDEN_TASK


def test_negative_numbers_survive() -> None:
    task = TaskMessage("t", retry=-1, deadline=-2)
    assert decode_task_message(encode_task_message(task)) == task


def test_servers_workers_and_schedulers_survive_a_round_trip() -> None:
    server = ServerInfo("h", 1, "s", 10, {"a": 1, "b": 2}, True, "active", 12.5, 3)
    worker = WorkerInfo("h", 1, "s", "id", "t", b"\x00", "q", 1.5, 2.5)
    entry = SchedulerEntry("e", "@every 3s", "t", b"p", ('Queue("q")',), 7.25, None)
    assert decode_server_info(encode_server_info(server)) == server
    assert decode_worker_info(encode_worker_info(worker)) == worker
    assert decode_scheduler_entry(encode_scheduler_entry(entry)) == entry


def test_an_enqueue_event_is_written_with_its_time_as_a_timestamp() -> None:
    written = encode_scheduler_enqueue_event(SchedulerEnqueueEvent("id", 3.5))
    assert written == b"\x0a\x02id" + bytes.fromhex("1208 0803 1080cab5ee01")


def test_gos_zero_time_is_never() -> None:
    never = bytes.fromhex("3a0b0880 92b8c398 feffffff01".replace(" ", ""))  # field 7, seconds -62135596800
    assert decode_scheduler_entry(never).prev_enqueue_time is None


@pytest.mark.parametrize("data", [b"\xff", b'{"Type":"t"}', b"\x0a\x02\xff\xfe", GOLDEN[:-1]])
def test_what_is_no_task_message_is_a_message_error(data: bytes) -> None:
    with pytest.raises(MessageError, match="not an asynq TaskMessage"):
        decode_task_message(data)
