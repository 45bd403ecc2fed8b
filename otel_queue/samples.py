"""What travels from a source to a reader: families of samples."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

LabelValues = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Family:
    """All samples of one metric at one time.

    `samples` are pairs of label values, in the order of the keys of the metric's catalog row, and a value. An
    unknown value has no sample. `time` is in Unix seconds; `source` names where the values come from. `start` is
    when a counter began, where that is known better than by the exporter's own start.
    """

    name: str
    samples: Sequence[tuple[LabelValues, float]]
    time: float
    source: str
    start: float | None = None


def fold(
    samples: Iterable[tuple[LabelValues, float]],
    kept: Sequence[int],
    combine: Callable[[float, float], float],
) -> list[tuple[LabelValues, float]]:
    """The samples with only the label values at the `kept` positions; those that become equal are combined."""
    folded: dict[LabelValues, float] = {}
    for values, value in samples:
        label = tuple(values[index] for index in kept)
        folded[label] = combine(folded[label], value) if label in folded else value
    return list(folded.items())
