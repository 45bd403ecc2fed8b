"""Messages and hash fields that are damaged: decoding one raises MessageError or nothing."""

import contextlib
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_queue.asynq.message import (
    TaskMessage,
    decode_scheduler_entry,
    decode_server_info,
    decode_task_message,
    decode_worker_info,
    encode_scheduler_entry,
    encode_server_info,
    encode_task_message,
    encode_worker_info,
)
from otel_queue.errors import MessageError
from otel_queue.redis_client.replies import Fields, counter, decimal, scored
from tests.fuzz.budget import FIELDS, MESSAGES, counted, seeded
from tests.fuzz.mutation import mutate, mutate_reply, random_bytes, random_reply
from tests.inspector.filled import ENTRIES, SERVER, WORKER

RICH = TaskMessage(
    "type", b"payload", "id", "queue", 3, 2, "error", 30, 10**9, "unique", 10**9, 60, 10**9, "group", {"": "v"}
)  # fmt: skip
DECODERS: dict[str, tuple[Callable[[bytes], Any], list[bytes]]] = {
    "task": (decode_task_message, [encode_task_message(RICH), encode_task_message(TaskMessage("t"))]),
    "server": (decode_server_info, [encode_server_info(SERVER)]),
    "worker": (decode_worker_info, [encode_worker_info(WORKER)]),
    "entry": (decode_scheduler_entry, [encode_scheduler_entry(entry) for entry in ENTRIES]),
}


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", DECODERS)
def test_a_damaged_message_is_decoded_or_refused(name: str) -> None:
    decode, whole = DECODERS[name]
    chance = seeded(name)
    refused = 0
    for _ in counted(MESSAGES // len(DECODERS), name):
        data = mutate(chance.choice(whole), chance) if chance.random() < 0.9 else random_bytes(chance)
        try:
            decoded = decode(data)
        except MessageError:
            refused += 1
        else:
            # Whatever is shown somewhere must be text.
            for value in (getattr(decoded, field) for field in decoded.__slots__):
                if isinstance(value, str):
                    value.encode()
    assert refused


@pytest.mark.timeout(600)
def test_a_damaged_field_is_read_or_unknown_and_counted() -> None:
    chance = seeded("fields")
    texts = [b"0", b"17", b"-5", b"1700000000000000000", b"9223372036854775807"]
    whole = [*texts, [b"a", b"1700000000"], [b"a", b"inf"]]
    failures: Counter[str] = Counter()
    fields = Fields(failures)
    for _ in counted(FIELDS, "fields"):
        value = chance.choice(whole)
        value = mutate_reply(value, chance) if chance.random() < 0.8 else random_reply(chance)
        before = failures.total()
        if isinstance(value, bytes):
            found: Any = fields.counter(value)
        else:
            found = fields(scored, value)
            fields.first_score(value, 0.0)
            fields.integer(value)
            fields(counter, value)
        assert found is not None or failures.total() > before
        if isinstance(value, bytes) and found is not None:
            assert decimal(value) == int(value) == found
    assert failures


text = st.text(st.characters(exclude_categories=["Cs"]))
int64 = st.integers(-(2**63), 2**63 - 1)
int32 = st.integers(-(2**31), 2**31 - 1)


@settings(max_examples=200, deadline=None)
@given(
    st.builds(
        TaskMessage,
        type=text, payload=st.binary(), id=text, queue=text, retry=int32, retried=int32, error_msg=text,
        timeout=int64, deadline=int64, unique_key=text, last_failed_at=int64, retention=int64,
        completed_at=int64, group_key=text, headers=st.dictionaries(text, text, max_size=4),
    )
)  # fmt: skip
def test_a_task_message_is_decoded_as_it_was_encoded(message: TaskMessage) -> None:
    encoded = encode_task_message(message)
    assert decode_task_message(encoded) == message
    assert encode_task_message(decode_task_message(encoded)) == encoded


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(data: bytes) -> None:
    for decode, _ in DECODERS.values():
        with contextlib.suppress(MessageError):
            assert decode(data) == decode(data)
