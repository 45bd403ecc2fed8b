"""Counters that are added up in the process and handed to their instruments by a collection.

The SDK's `Counter.add` cleans and hashes the attributes once per reader and call. Here a call costs one dictionary
entry; the SDK's work is done once per collection, for each set of labels that changed.
"""

import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Final, NamedTuple, Protocol

from otel_queue import labels
from otel_queue.lifecycle import UNTOLD, Label

MOST_SETS: Final = 20_000

_OVERFLOW: Final = ("overflow",)

# What a caller tells of a set of labels: texts, and for labels of the domain also None and UNTOLD.
Told = tuple[Hashable, ...]
Adder = Callable[[float, Mapping[str, str]], None]


class LabelSet(NamedTuple):
    """Attributes as they are exported. `altered` is how many values were cut, cleaned or made `other`, and why."""

    attributes: Mapping[str, str]
    altered: int = 0
    reason: str = ""


class LabelSets:
    """From label values as told to attributes, remembered for `most_sets` sets.

    Sets past that share one with every value `other`: a process must not grow with what its tasks carry.
    """

    def __init__(self, keys: Sequence[str], most_sets: int = MOST_SETS) -> None:
        self._keys = tuple(keys)
        self._most = most_sets
        self._known: dict[Told, LabelSet] = {}
        self._other = LabelSet(dict.fromkeys(self._keys, labels.OTHER), len(self._keys), "limit")

    def __getitem__(self, told: Told) -> LabelSet:
        """The attributes for label values in the order of the keys; raises TypeError for what is no label."""
        known = self._known.get(told)
        if known is not None:
            return known
        if told is _OVERFLOW or len(self._known) >= self._most:
            return self._other
        known = self._known[told] = self._cleaned(told)
        return known

    def _cleaned(self, told: Told) -> LabelSet:
        attributes = {key: _value(key, value) for key, value in zip(self._keys, told, strict=True)}
        altered = sum(isinstance(value, str) and labels.clean(value) != value for value in told)
        return LabelSet(attributes, altered, "cleaned" if altered else "")


def _value(key: str, told: object) -> str:
    if told is not UNTOLD and told is not None and not isinstance(told, str):
        raise TypeError(f"label {key} is {type(told).__name__}, not text")
    label: Label = told
    value = labels.source(label) if key == "source" else labels.plain(label)
    return labels.UNKNOWN if value is None else value


class PreaggregatedCounter:
    """A counter's sums since the last collection, by set of labels. Exact under threads.

    `reset` is for a forked child: the sums are the parent's, and a lock may have been held by a thread that the
    child does not have.
    """

    __slots__ = ("_adder", "_altered", "_lock", "_most", "_name", "_pending", "_sets")

    def __init__(
        self, name: str, keys: Sequence[str], altered: "PreaggregatedCounter | None", most_sets: int = MOST_SETS
    ) -> None:
        self._name = name
        self._sets = LabelSets(keys, most_sets)
        self._most = most_sets
        self._altered = altered
        self._adder: Adder | None = None
        self.reset()

    def bind(self, adder: Adder) -> None:
        """Hands over to this instrument's `add` from now on."""
        self._adder = adder

    def reset(self) -> None:
        """Forgets what was not handed over."""
        self._pending: dict[Told, float] = {}
        # Reentrant, since a signal handler may record while its thread is in here.
        self._lock = threading.RLock()

    def add(self, told: Told, amount: float = 1) -> None:
        """Adds to the set of labels; raises TypeError for values that cannot be hashed."""
        with self._lock:
            pending = self._pending
            if told in pending:
                pending[told] += amount
            elif len(pending) < self._most:
                pending[told] = amount
            else:
                pending[_OVERFLOW] = pending.get(_OVERFLOW, 0) + amount

    def hand_over(self) -> int:
        """Adds the sums to the instrument; returns how many additions had labels that are none."""
        with self._lock:
            pending, self._pending = self._pending, {}
        refused = 0
        for told, amount in pending.items():
            try:
                found = self._sets[told]
            except (TypeError, ValueError):
                refused += 1
                continue
            if self._adder is not None:
                self._adder(amount, found.attributes)
            if found.altered and self._altered is not None:
                self._altered.add((self._name, found.reason), abs(amount) * found.altered)
        return refused


class Recordable(Protocol):
    """What is needed of a histogram."""

    def record(self, amount: float, attributes: Mapping[str, str]) -> None:
        """Records one observation."""
        ...


class LabelledHistogram:
    """A histogram with remembered sets of labels; observations go to the instrument one by one."""

    __slots__ = ("_altered", "_histogram", "_name", "_sets")

    def __init__(
        self, name: str, keys: Sequence[str], altered: PreaggregatedCounter, most_sets: int = MOST_SETS
    ) -> None:
        self._name = name
        self._sets = LabelSets(keys, most_sets)
        self._altered = altered
        self._histogram: Recordable | None = None

    def bind(self, histogram: Recordable) -> None:
        """Records into this instrument from now on."""
        self._histogram = histogram

    def record(self, told: Told, amount: float) -> None:
        """Records one observation; raises TypeError for labels that are none."""
        found = self._sets[told]
        if self._histogram is not None:
            self._histogram.record(amount, found.attributes)
        if found.altered:
            self._altered.add((self._name, found.reason), found.altered)
