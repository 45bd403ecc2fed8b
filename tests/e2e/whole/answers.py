"""Questions to a dashboard, answers by labels, and what can be known of a number."""

import re
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from otel_queue.catalog import CATALOG

INFINITE: Final = float("inf")


@dataclass(frozen=True, slots=True)
class Between:
    """A number of which only the limits are known, both included."""

    low: float
    high: float


Labels = frozenset[tuple[str, str]]
Answer = Mapping[Labels, "float | Between"]
Question = tuple[str, str]
"""A panel's title and a query's legend."""


def labelled(**labels: str) -> Labels:
    """To Prometheus an empty label is none."""
    return frozenset((key, value) for key, value in labels.items() if value)


def is_as(known: float | Between, value: float) -> bool:
    if isinstance(known, Between):
        return known.low <= value <= known.high
    return value == known


def countable(expression: str) -> str:
    """The query for that which a rate, a quantile or a top list is made of."""
    expression = re.sub(r"rate\((\w+\{[^}]*\})\[[^\]]+\]\)", r"\1", expression)
    expression = re.sub(r"^histogram_quantile\([\d.]+, (.*)\)$", r"\1", expression)
    return re.sub(r"^(?:topk|bottomk)\(\d+, (.*)\)$", r"\1", expression)


def counted(labels: Iterable[Labels]) -> dict[Labels, float]:
    """How often each is there."""
    return {each: float(count) for each, count in Counter(labels).items()}


def largest(ages: Iterable[tuple[Labels, float | Between]]) -> Answer:
    """The largest of those with the same labels."""
    found: dict[Labels, float | Between] = {}
    for labels, age in ages:
        held = found.get(labels, 0.0)
        found[labels] = max(held, age, key=lambda each: each.high if isinstance(each, Between) else each)
    return found


def buckets(name: str, observed: Iterable[tuple[Labels, float]]) -> Answer:
    """How many observations each bucket of a histogram has, which are those of the smaller ones too."""
    limits = [*CATALOG[name].boundaries, INFINITE]
    found: Counter[Labels] = Counter()
    for labels, seconds in observed:
        for limit in limits:
            found[labels | {("le", str(float(limit)))}] += seconds <= limit
    return {labels: float(count) for labels, count in found.items()}
