"""Exported numbers compared with expected ones, and the table of it."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from tests.convoy.expected import Age, Labels, Numbers

Number = float | Age | None
Exported = Mapping[str, Mapping[Labels, float]]
"""By metric and labels."""


class Difference(NamedTuple):
    metric: str
    labels: Labels
    ours: float | None
    known: Number
    cause: str
    """Empty: nobody knows it."""

    def __str__(self) -> str:
        labels = ",".join(f"{key}={value}" for key, value in sorted(self.labels))
        return f"{self.metric}{{{labels}}}: {self.ours}, not {self.known}; {self.cause or 'unexplained'}"


Cause = Callable[[str, float | None, Number], str]
"""The name of a known difference, by metric, our value and the other; empty where it is none."""


@dataclass(frozen=True, slots=True)
class Compared:
    """What came of one comparison at one moment."""

    moment: str
    against: str
    values: Counter[str]
    ages: int
    """How many of them were not 0, and grew."""
    differences: Sequence[Difference]

    @property
    def unexplained(self) -> list[Difference]:
        return [each for each in self.differences if not each.cause]


def exported(text: str, metrics: Iterable[str]) -> Exported:
    """The series of a scrape; a metric without one is there, empty."""
    numbers: dict[str, dict[Labels, float]] = {metric: {} for metric in metrics}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            if sample.name in numbers:
                numbers[sample.name][frozenset(sample.labels.items())] = sample.value
    return numbers


def compare(moment: str, against: str, ours: Exported, known: Numbers, cause: Cause = lambda *_: "") -> Compared:
    """Every series that either side has, of the metrics that the other side knows."""
    values: Counter[str] = Counter()
    ages = 0
    differences: list[Difference] = []
    for metric, series in known.items():
        found = ours.get(metric, {})
        for labels in series.keys() | found.keys():
            value, expected = found.get(labels), series.get(labels)
            values[metric] += 1
            ages += isinstance(expected, Age)
            if not _is_as(value, expected):
                differences.append(Difference(metric, labels, value, expected, cause(metric, value, expected)))
    return Compared(moment, against, values, ages, differences)


def _is_as(value: float | None, expected: Number) -> bool:
    if isinstance(expected, Age):
        return value is not None and max(expected.low, 0.0) <= value <= expected.high
    return value == expected


def between(before: Numbers, after: Numbers, slack: float) -> Numbers:
    """What is known of a reading that lay between two others: what both say, and the ages in between."""
    numbers: Numbers = {}
    for metric, series in before.items():
        numbers[metric] = {}
        for labels, first in series.items():
            last = after.get(metric, {}).get(labels)
            if isinstance(first, Age) and isinstance(last, Age):
                if first.low <= last.low + slack:
                    numbers[metric][labels] = Age(first.low - slack, last.high + slack)
            elif last == first:
                numbers[metric][labels] = first
    return numbers


def only_known(ours: Exported, known: Numbers) -> Exported:
    """Ours without the series that may have moved while they were read."""
    return {metric: {each: value for each, value in ours.get(metric, {}).items() if each in series}
            for metric, series in known.items()}  # fmt: skip


def table(compared: Sequence[Compared]) -> str:
    """One line for each metric and side, then the differences by cause."""
    values: Counter[tuple[str, str]] = Counter()
    different: Counter[tuple[str, str]] = Counter()
    causes: dict[tuple[str, str], Counter[str]] = {}
    for each in compared:
        for metric, count in each.values.items():
            values[each.against, metric] += count
        for difference in each.differences:
            key = (each.against, difference.metric)
            different[key] += 1
            causes.setdefault(key, Counter())[difference.cause or "UNEXPLAINED"] += 1
    lines = [f"{'compared':34}{'metric':58}{'values':>8}{'different':>11}  cause"]
    for (against, metric), count in sorted(values.items()):
        key = (against, metric)
        said = "; ".join(f"{cause} ({times})" for cause, times in causes.get(key, Counter()).items())
        lines.append(f"{against:34}{metric:58}{count:8}{different[key]:11}  {said}".rstrip())
    lines.append(f"{'all':92}{values.total():8}{different.total():11}")
    return "\n".join(lines)
