"""From the journal to families: what every exporter shows of the comparisons, whoever makes them."""

from collections.abc import Iterable
from typing import Final

from otel_queue.samples import Family, LabelValues
from otel_queue.shadow.comparison import SIDES
from otel_queue.shadow.entry import Entry
from otel_queue.shadow.journal import Journaled

SOURCE: Final = "shadow"
_DRIFT: Final = "otel_queue_shadow_drift"
_MISSING: Final = "otel_queue_shadow_missing_series"
_WITHIN: Final = "otel_queue_shadow_within_tolerance"
_KNOWN: Final = "otel_queue_shadow_known_differences"
_COMPARISONS: Final = "otel_queue_shadow_comparisons_total"
_SKIPPED: Final = "otel_queue_shadow_skipped_total"

_Samples = list[tuple[LabelValues, float]]


def shadow_families(journal: Journaled, metrics: Iterable[str], *, max_age_seconds: float) -> list[Family]:
    """The families of the metrics that are compared.

    What the last comparison said is left out when that is older than `max_age_seconds`; how many were made stays.
    """
    entries = [journal.entries[metric] for metric in metrics if metric in journal.entries]
    fresh = [entry for entry in entries if is_fresh(entry, journal.time, max_age_seconds)]
    samples: dict[str, _Samples] = {
        _DRIFT: [((entry.metric,), entry.drift) for entry in fresh],
        _MISSING: [((entry.metric, side), float(entry.missing.get(side, 0))) for entry in fresh for side in SIDES],
        _WITHIN: [((entry.metric,), float(not entry.standing)) for entry in fresh],
        _KNOWN: [
            ((entry.metric, side, name), float(count))
            for entry in fresh
            for side, named in (("ledger", entry.known), ("legacy", entry.legacy))
            for name, count in named.items()
        ],
        _COMPARISONS: [((entry.metric,), float(entry.comparisons)) for entry in entries],
        _SKIPPED: [((entry.metric, reason), float(count))
                   for entry in entries for reason, count in entry.skipped.items()],
    }  # fmt: skip
    return [Family(name, found, journal.time, SOURCE) for name, found in samples.items() if found]


def is_fresh(entry: Entry, now: float, max_age_seconds: float) -> bool:
    """Whether the last comparison still says something of now."""
    return entry.last is not None and now - entry.last <= max_age_seconds
