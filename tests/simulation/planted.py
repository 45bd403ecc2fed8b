"""Bugs to be planted, one at a time: each drops one guard of a script, or of the code that reads and writes."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Final
from unittest import mock

from otel_queue.ledger import changes, contract, held, lanes, registry
from otel_queue.ledger.identity import end_of
from tests.simulation.virtual_redis import Patch


@dataclass(frozen=True, slots=True)
class Bug:
    """What is dropped, and how: patches of scripts, or something in place while schedules run."""

    what: str
    patches: Sequence[Patch] = ()
    code: Callable[[], AbstractContextManager[object]] = nullcontext


@contextmanager
def _nothing_is_held() -> Iterator[None]:
    with mock.patch.object(held.HeldCounters, "attempts", lambda self, project: project.attempts):
        yield


@contextmanager
def _every_history_is_the_same() -> Iterator[None]:
    with (
        mock.patch.object(registry, "history_of", return_value=b""),
        mock.patch.object(changes, "history_of", return_value=b""),
    ):
        yield


@contextmanager
def _one_lane_for_all() -> Iterator[None]:
    """What fails for one project stops all of them."""

    def among(self: lanes.FailingLanes, records: Sequence[object]) -> frozenset[str]:
        return frozenset(record.project for record in records) if self._lanes else frozenset()  # type: ignore[attr-defined]

    with mock.patch.object(lanes.FailingLanes, "among", among):
        yield


@contextmanager
def _one_rule_for_all_days() -> Iterator[None]:
    def tracked_until(self: contract.Contract, day: str) -> int:
        return end_of(day) + self.rule_of(day).track_days * 86_400

    with mock.patch.object(contract.Contract, "tracked_until", tracked_until):
        yield


BUGS: Final = (
    Bug(
        "a status that was set beats the one a created record tells only when it is later",
        [("record_deliveries", "if is_set ~= held.is_set then return is_set end", "")],
    ),
    Bug(
        "a status set back counts although a later one was set back before",
        [
            (
                "record_deliveries",
                "local is_new = not was_ahead or is_new_ahead(",
                "local is_new = true or is_new_ahead(",
            )
        ],
    ),
    Bug(
        "a time far ahead of Redis stands as told",
        [("prelude", "if at <= latest then return", "if true then return")],
    ),
    Bug(
        "an id that is not known is taken after its tracking",
        [("record_deliveries", "(is_settled(of) or is_past())", "is_settled(of)")],
    ),
    Bug(
        "a delivery that changes while its day is settled keeps an old copy",
        [("prelude", "elseif of == settling and not is_undated then", "elseif false then")],
    ),
    Bug(
        "records of a folded day move the counts that the day had before",
        [("prelude", "return folded and of <= folded and 'settled' or of", "return of")],
    ),
    Bug(
        "a delivery that leaves Processing stays in the index",
        [("record_deliveries", "if indexed then redis.call('ZREM', index_prefix .. member, indexed) end", "")],
    ),
    Bug(
        "groups are given back although the project changed since it was looked at",
        [("free_groups", "if redis.call('HGET', KEYS[1], 'sequence') ~= ARGV[3] then return 0 end", "")],
    ),
    Bug(
        "attempts have no cap on their sets of labels",
        [("record_attempts", "or redis.call('HLEN', KEYS[3]) <= rule.most_groups then", "or true then")],
    ),
    Bug(
        "open deliveries outlive the day that expires",
        [("expire_day", "if day_of_ulid(id) <= day then redis.call('HDEL', node, id) end", "")],
    ),
    Bug(
        "a day is settled while one before it is tracked",
        [("contract", "latest = math.max(latest, end_of(from) - 86400 + tracked)", "")],
        _one_rule_for_all_days,
    ),
    Bug(
        "nodes of a day are not told when to end",
        [("prelude", "redis.call('ZADD', 'sim:ends', tracked_until", "redis.call('ZADD', 'sim:never', tracked_until")],
    ),
    Bug("an exported counter falls with the ledger", code=_nothing_is_held),
    Bug("a reader goes by numbers alone after a failover", code=_every_history_is_the_same),
    Bug("a project that fails holds up the others", code=_one_lane_for_all),
)
