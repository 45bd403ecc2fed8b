"""A generation: everything one refresh read, as one value that is there whole or not at all."""

import json
import math
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from otel_queue.catalog import CATALOG
from otel_queue.errors import ReadError
from otel_queue.postgres.aggregations import SOURCE
from otel_queue.samples import Family

# Stands in the key too, so that exporters of two versions do not throw out each other's generations.
VERSION: Final = 1
_HEAD: Final = b"oqg%d\n" % VERSION
# What a generation may unpack to; a million series are a quarter of it.
_MOST_BYTES: Final = 1 << 30
_LEVEL: Final = 3


@dataclass(frozen=True, slots=True)
class Generation:
    """Families as read at `time` (Redis server time, Unix seconds), and what could not be read (reason -> count).

    A family has its own time where it was older when it was read.
    """

    time: float
    families: tuple[Family, ...]
    failures: Mapping[str, int] = field(default_factory=dict)


def encode(generation: Generation) -> bytes:
    """A head with the version, then deflated JSON: per family its name, its time, a column per key, and the values."""
    families = [
        [family.name, family.time, *_columns(family), [value for _, value in family.samples]]
        for family in generation.families
    ]
    document = {"time": generation.time, "failures": dict(generation.failures), "families": families}
    text = json.dumps(document, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return _HEAD + zlib.compress(text.encode(), _LEVEL)


def _columns(family: Family) -> list[list[str]]:
    width = len(CATALOG[family.name].keys)
    return [[values[index] for values, _ in family.samples] for index in range(width)]


def decode(packed: bytes) -> Generation:
    """The generation; raises ReadError with reason `broken_generation` for anything else."""
    if not packed.startswith(_HEAD):
        raise _broken("it does not begin as one of this version does")
    try:
        unpacker = zlib.decompressobj()
        text = unpacker.decompress(packed[len(_HEAD) :], _MOST_BYTES)
        if not unpacker.eof:
            raise _broken("it is cut off, or too large")
        return _generation(json.loads(text.decode(), parse_constant=_refuse))
    except (zlib.error, ValueError, TypeError, KeyError, AttributeError, ArithmeticError, RecursionError) as error:
        raise _broken(f"{type(error).__name__}: {error}"[:200]) from error


def _generation(document: dict[str, Any]) -> Generation:
    failures = {reason: int(_number(count)) for reason, count in document["failures"].items()}
    _check_text(failures)
    return Generation(_number(document["time"]), tuple(map(_family, document["families"])), failures)


def _family(stored: list[Any]) -> Family:
    name, time, *columns, values = stored
    if len(columns) != len(CATALOG[name].keys):
        raise ValueError(f"{name} has {len(columns)} columns")
    if CATALOG[name].owner != "ledger":
        raise ValueError(f"{name} is not read from the database")
    for column in columns:
        _check_text(column)
    rows = zip(*columns, strict=True)
    samples = [(row, _number(value)) for row, value in zip(rows, values, strict=True)]
    return Family(name, samples, _number(time), SOURCE)


def _check_text(texts: Iterable[Any]) -> None:
    """Raises for what is no text, or one that cannot be written: JSON can spell half of a surrogate pair."""
    "".join(texts).encode()


def _number(value: Any) -> float:
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError(f"{type(value).__name__} where a number should be")
    return float(value)


def _refuse(constant: str) -> float:
    raise ValueError(f"{constant} is no value")


def _broken(what: str) -> ReadError:
    return ReadError("broken_generation", f"the generation in Redis cannot be read: {what}")
