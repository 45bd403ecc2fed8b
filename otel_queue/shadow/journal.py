"""The journal: what has come of the comparisons, for every exporter to show and the next comparer to go on from."""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

from otel_queue.catalog import CATALOG
from otel_queue.config.settings import DOMAIN_METRICS
from otel_queue.errors import ReadError
from otel_queue.redis_client import RedisLink, Reply, ask, integer, names, request, taking_apart, time_us
from otel_queue.shadow.comparison import SIDES, Side
from otel_queue.shadow.entry import Entry, Standing

VERSION: Final = 1
_LIFE_MS: Final = 30 * 86_400_000
_MOST: Final = 2**63


@dataclass(frozen=True, slots=True)
class Journaled:
    """The journal at `time` (Redis server time). `failures` counts entries that could not be read, by reason.

    `digests` are the SHA-1 of the entries as they are kept, readable or not.
    """

    time: float
    entries: Mapping[str, Entry]
    failures: Mapping[str, int]
    digests: Mapping[str, str]


class Journal:
    """One hash in the ledger's Redis, a field per metric. Both methods are one round trip and raise ReadError."""

    def __init__(self, link: RedisLink, *, namespace: str = "oq", timeout_seconds: float = 5.0) -> None:
        self._link = link
        self._timeout = timeout_seconds
        self.key = f"{namespace}:shadow:{VERSION}".encode()

    @taking_apart("the journal")
    def read(self) -> Journaled:
        """Every entry that is one; what is not is counted as `broken_journal`, and the next comparison replaces it."""
        clock, fields = self._exchange(("TIME",), ("HGETALL", self.key))
        flat = names(fields)
        entries: dict[str, Entry] = {}
        failures: Counter[str] = Counter()
        digests: dict[str, str] = {}
        for name, kept in zip(flat[::2], flat[1::2], strict=True):
            metric = name.decode("utf-8", "replace")
            if metric not in DOMAIN_METRICS:
                continue
            digests[metric] = hashlib.sha1(kept, usedforsecurity=False).hexdigest()
            try:
                entries[metric] = decode(metric, kept)
            except ReadError as error:
                failures[error.reason] += 1
        return Journaled(time_us(clock) / 1e6, entries, failures, digests)

    def keep(self, entries: Iterable[Entry], read: Journaled) -> int:
        """Replaces entries that are still as they were `read`; returns how many were not, another's being newer."""
        given = list(entries)
        words = [word for entry in given for word in (entry.metric, read.digests.get(entry.metric, ""), encode(entry))]
        [kept] = self._exchange(("EVAL", _script(), 1, self.key, _LIFE_MS, *words))
        return len(given) - integer(kept)

    def close(self) -> None:
        """Ends the connections; a later call opens new ones."""
        self._link.close()

    def _exchange(self, *commands: tuple[bytes | str | int, ...]) -> list[Reply]:
        return ask(self._link, [request(self.key, commands)], self._timeout)[0]


@cache
def _script() -> bytes:
    return (resources.files(__package__) / "keep_entries.lua").read_bytes()


def encode(entry: Entry) -> bytes:
    """JSON, by the names of Entry's fields; a standing series is a list."""
    return json.dumps(asdict(entry), ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def decode(metric: str, kept: bytes) -> Entry:
    """The entry; raises ReadError with reason `broken_journal` for anything else."""
    try:
        found = json.loads(kept.decode(), parse_constant=_refuse)
        if found["metric"] != metric:
            raise ValueError("it is another metric's")
        width = len(CATALOG[metric].keys)
        return Entry(
            metric,
            rule=_text(found["rule"]),
            comparisons=_count(found["comparisons"]),
            first=_time(found["first"]),
            last=_time(found["last"]),
            within_since=_time(found["within_since"]),
            within=_count(found["within"]),
            drift=_number(found["drift"]),
            missing=_counts(found["missing"]),
            skipped=_counts(found["skipped"]),
            known=_counts(found["known"]),
            legacy=_counts(found["legacy"]),
            standing=_count(found["standing"]),
            worst=tuple(_standing(item, width) for item in found["worst"]),
        )
    except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise ReadError("broken_journal", f"the journal's entry of {metric} cannot be read: {error!r}"[:300]) from error


def _standing(stored: Any, width: int) -> Standing:
    series, *numbers, missing, since, comparisons, beyond, stands = stored
    low, high, postgres, amount = map(_number, numbers)
    if len(series) != width or type(stands) is not bool:
        raise ValueError(f"{series!r} is not a series of it")
    return Standing(
        tuple(map(_text, series)), low, high, postgres, amount, _side(missing), _number(since), _count(comparisons),
        _count(beyond), stands,
    )  # fmt: skip


def _side(value: Any) -> Side | Literal[""]:
    for side in SIDES:
        if value == side:
            return side
    if value != "":
        raise ValueError(f"{value!r} is no side")
    return ""


def _text(value: Any) -> str:
    if type(value) is not str:
        raise ValueError(f"{value!r} is no text")
    value.encode()  # JSON can spell half of a surrogate pair, which nothing could show
    return value


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{value!r} is no number")
    return float(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value < _MOST:
        raise ValueError(f"{value!r} is no count")
    return value


def _time(value: Any) -> float | None:
    return None if value is None else _number(value)


def _counts(value: Any) -> dict[str, int]:
    return {_text(name): _count(count) for name, count in value.items()}


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no value")
