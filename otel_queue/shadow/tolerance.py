"""By how much ledger and database may differ, metric by metric; docs/decisions/0011-shadow-comparison.md says why."""

import hashlib
import json
from dataclasses import dataclass
from typing import Final, NamedTuple

from otel_queue.catalog import CATALOG, DELIVERIES
from otel_queue.config import Config, MetricConfig
from otel_queue.config.settings import DOMAIN_METRICS
from otel_queue.samples import LabelValues

# A change of what a comparison means makes earlier ones worthless, as a change of a tolerance does.
_MEANING: Final = 1
_IN_FLIGHT: Final = frozenset({"scheduled", "processing", "retry"})
# What two clocks, read one after the other, may disagree by where nothing else may.
_CLOCK_SECONDS: Final = 1.0


class Rule(NamedTuple):
    """What may differ: `absolute`, and a share of the value.

    A smaller difference that keeps its sign for `patience` comparisons in a row is none of timing; None: it may be.
    """

    absolute: float
    relative: float
    patience: int | None

    def allows(self, amount: float, value: float) -> bool:
        """Whether a difference of `amount` is within tolerance of `value`."""
        return abs(amount) <= self.absolute + self.relative * abs(value)


_SETTLED: Final = Rule(0.0, 0.0001, 5)
_MOVING: Final = Rule(10.0, 0.1, 30)
_AGES: Final = Rule(5.0, 0.0, None)
_INCREASES: Final = Rule(0.0, 0.01, 5)


@dataclass(frozen=True, slots=True)
class Tolerance:
    """One metric's rules: for deliveries in flight, and for everything else."""

    metric: str
    settled: Rule
    in_flight: Rule

    def rule(self, labels: LabelValues) -> Rule:
        """The rule for a series."""
        if self.metric != DELIVERIES:
            return self.settled
        return self.in_flight if labels[_STATUS] in _IN_FLIGHT else self.settled

    @property
    def digest(self) -> str:
        """The same for the same rules only."""
        words = json.dumps([_MEANING, self.settled, self.in_flight])
        return hashlib.sha256(words.encode()).hexdigest()[:16]


_STATUS: Final = CATALOG[DELIVERIES].keys.index("status")


def tolerances(config: Config) -> dict[str, Tolerance]:
    """The tolerance of every domain metric that has a shadow."""
    return {
        metric: tolerance(metric, config.metrics.get(metric))
        for metric in DOMAIN_METRICS
        if config.sources_of(metric).shadow is not None
    }


def tolerance(metric: str, own: MetricConfig | None = None) -> Tolerance:
    """A metric's tolerance: the default, and over it what [domain.metrics.NAME] says, for all its series."""
    own = own or MetricConfig()
    row = CATALOG[metric]
    if row.unit == "s":
        rule = _AGES if own.age_seconds is None else _AGES._replace(absolute=own.age_seconds)
        return Tolerance(metric, rule, rule)
    if row.kind == "counter":
        rule = _changed(_INCREASES, own)
        return Tolerance(metric, rule, rule)
    return Tolerance(metric, _changed(_SETTLED, own), _changed(_MOVING if metric == DELIVERIES else _SETTLED, own))


def _changed(rule: Rule, own: MetricConfig) -> Rule:
    return rule._replace(
        absolute=rule.absolute if own.absolute is None else own.absolute,
        relative=rule.relative if own.relative is None else own.relative,
    )


def exact(metric: str) -> Tolerance:
    """No tolerance, but for what the clocks of two servers may disagree by in an age."""
    rule = Rule(_CLOCK_SECONDS if CATALOG[metric].unit == "s" else 0.0, 0.0, None)
    return Tolerance(metric, rule, rule)
