"""The compatibility metrics: what changed its meaning, as it was before. Each goes with the version its row names."""

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Final

from otel_queue.catalog import ATTEMPTS
from otel_queue.samples import Family

_LEGACY_ATTEMPTS: Final = "convoy_event_delivery_attempts_legacy"
_ZERO_WHEN_UNKNOWN: Final = {
    "convoy_event_queue_scheduled_legacy": "convoy_event_queue_scheduled_total",
    "convoy_event_workflow_queue_match_subscriptions_legacy": "convoy_event_workflow_queue_match_subscriptions_total",
}


def compatibility_families(families: Mapping[str, Family], *, convoy: bool) -> dict[str, Family]:
    """The attempts as a gauge, absent where they are; with `convoy` its queue gauges too, 0 where they are absent."""
    found: dict[str, Family] = {}
    if (attempts := families.get(ATTEMPTS)) is not None:
        found[_LEGACY_ATTEMPTS] = replace(attempts, name=_LEGACY_ATTEMPTS, start=None)
    if convoy:
        for name, now in _ZERO_WHEN_UNKNOWN.items():
            family = families.get(now)
            known = family is not None and family.samples
            found[name] = (
                replace(family, name=name)
                if family is not None and known
                else Family(name, [(("scheduled",), 0.0)], time.time(), "derived")
            )
    return found
