"""Families of both sides in a few words, and a shadow whose ledger is what the test says."""

from collections.abc import Mapping, Sequence
from typing import Any

from otel_queue.catalog import CATALOG
from otel_queue.samples import Family, LabelValues
from otel_queue.shadow.comparison import Comparison, compare
from otel_queue.shadow.tolerance import Tolerance, tolerance

EVENTS = "convoy_event_queue_total"
EVENT_BACKLOG = "convoy_event_queue_backlog_seconds"
DELIVERIES = "convoy_event_delivery_queue_total"
DELIVERY_BACKLOG = "convoy_event_delivery_queue_backlog_seconds"
ATTEMPTS = "convoy_event_delivery_attempts_total"

NOW = 1_000_000.0
# What a series has where a test does not say otherwise.
USUAL = {
    "project": "P",
    "project_name": "Proj",
    "endpoint": "E1",
    "event_type": "t",
    "organisation_id": "O",
    "organisation_name": "Org",
    "source": "S1",
    "http_status_code": "200",
}


def series(metric: str, words: str) -> LabelValues:
    """The labels of `status=retry source=S2` and what is usual; a word alone is the source."""
    said = dict(USUAL, status="success")
    for word in words.split():
        key, _, value = word.rpartition("=")
        said[key or "source"] = value
    return tuple(said[key] for key in CATALOG[metric].keys)


def family(metric: str, samples: Mapping[str, float], time: float = NOW, source: str = "ledger") -> Family:
    return Family(metric, [(series(metric, words), value) for words, value in samples.items()], time, source)


def compared(
    metric: str,
    ledger: Mapping[str, float] | Sequence[Mapping[str, float]],
    database: Mapping[str, float],
    rule: Tolerance | None = None,
    **options: Any,
) -> Comparison:
    """One comparison; of a single `ledger` all three readings are the same."""
    looks = [ledger] * 3 if isinstance(ledger, Mapping) else ledger
    readings = [family(metric, look) for look in looks]
    return compare(rule or tolerance(metric), readings, family(metric, database), NOW, **options)


def amounts(found: Comparison) -> dict[str, float]:
    """Each difference by the labels that are not as usual."""
    return {_words(found.metric, item.labels): item.amount for item in found.differences}


def _words(metric: str, labels: LabelValues) -> str:
    pairs = zip(CATALOG[metric].keys, labels, strict=True)
    said = [(key, value) for key, value in pairs if key == "source" or USUAL.get(key, "success") != value]
    return " ".join(value if key == "source" else f"{key}={value}" for key, value in said)
