"""Memory usage of a queue by asynq's sampling formula, without Lua: an estimate in bytes.

Per state, the mean MEMORY USAGE of up to 20 task hashes times the number of tasks, plus the list or set
itself; for groups, the mean over up to 20 tasks of each of the first 5 groups times the tasks of all groups. A
task without a hash counts as 0 bytes (asynq v0.26.0 fails there).
"""

from collections.abc import Sequence
from itertools import islice
from typing import Final

from otel_queue.asynq import keys
from otel_queue.errors import ReadError
from otel_queue.redis_client import Reading, Reply, integer, names, request

_SAMPLE: Final = 20
_SAMPLED_GROUPS: Final = 5
_LISTS: Final = ("active", "pending")
_SETS: Final = ("scheduled", "retry", "archived", "completed")


def read_memory_usage(queue: bytes, groups_cap: int) -> Reading[int]:
    """Bytes used by the queue, truncated as asynq does; raises ReadError if any part of it is unknown.

    Four rounds. Costs up to 220 MEMORY USAGE commands.
    """
    stores = [keys.queue_key(queue, suffix) for suffix in (*_LISTS, *_SETS)]
    groups_key = keys.queue_key(queue, "groups")
    replies = yield request(
        stores[0],
        [
            *(("LLEN", key) for key in stores[:2]),
            *(("ZCARD", key) for key in stores[2:]),
            *(("LRANGE", key, 0, _SAMPLE - 1) for key in stores[:2]),
            *(("ZRANGE", key, 0, _SAMPLE - 1) for key in stores[2:]),
            *(("MEMORY", "USAGE", key) for key in stores),
            ("SCARD", groups_key),
        ],
    )
    lengths = [integer(reply) for reply in replies[:6]]
    samples = [names(reply) for reply in replies[6:12]]
    own = [_bytes(reply) for reply in replies[12:18]]
    group_count = integer(replies[18])
    if group_count > groups_cap:
        raise ReadError("groups_capped", f"{group_count} groups, at most {groups_cap} are read")
    grouped, group_sample = (yield from _read_groups(queue, groups_key)) if group_count else (0, [])

    sampled = [task_id for sample in (*samples, group_sample) for task_id in sample]
    prefix = keys.task(queue, b"")
    commands = [("MEMORY", "USAGE", prefix + task_id) for task_id in sampled]
    hashes = iter((yield request(stores[0], commands)) if commands else [])
    usage = 0.0
    for length, sample, size in zip(lengths, samples, own, strict=True):
        sizes = [_bytes(reply) for reply in islice(hashes, len(sample))]
        if sample:
            usage += sum(sizes) / len(sample) * length + size
    found = [size for size in (_bytes(reply) for reply in hashes) if size]
    if found:
        usage += sum(found) / len(found) * grouped
    return int(usage)


def _read_groups(queue: bytes, groups_key: bytes) -> Reading[tuple[int, Sequence[bytes]]]:
    """The number of tasks in all groups, and the IDs sampled from the first ones."""
    replies = yield request(groups_key, [("SMEMBERS", groups_key)])
    stores = [keys.group(queue, name) for name in names(replies[0])]
    if not stores:
        return 0, []
    sampled = stores[:_SAMPLED_GROUPS]
    replies = yield request(
        groups_key,
        [*(("ZCARD", key) for key in stores), *(("ZRANGE", key, 0, _SAMPLE - 1) for key in sampled)],
    )
    sizes = [integer(reply) for reply in replies[: len(stores)]]
    return sum(sizes), [task_id for reply in replies[len(stores) :] for task_id in names(reply)]


def _bytes(reply: Reply) -> int:
    return 0 if reply is None else integer(reply)
