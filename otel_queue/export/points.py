"""Families that are aggregated already, as OTLP points beside those that the SDK collected, as its public types."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple, cast

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Gauge,
    Metric,
    MetricsData,
    NumberDataPoint,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.util.instrumentation import InstrumentationScope

from otel_queue.catalog import CATALOG
from otel_queue.export.instruments import SCOPE, allowed_keys, narrowed
from otel_queue.samples import Family, LabelValues
from otel_queue.version import __version__

_SCOPE: Final = InstrumentationScope(SCOPE, __version__)


class _Point(NamedTuple):
    """What an exporter reads of a NumberDataPoint, which as a frozen dataclass takes three times as long to make."""

    attributes: Mapping[str, str]
    start_time_unix_nano: int
    time_unix_nano: int
    value: float
    exemplars: Sequence[Exemplar] = ()


class SeriesPoints:
    """Makes points of families; a series' attributes are kept from one push to the next, while it lives."""

    def __init__(self, attributes: Mapping[str, Sequence[str]]) -> None:
        self._allowed = attributes
        self._attributes: dict[str, dict[LabelValues, dict[str, str]]] = {}
        # The starts of counters that are not told one; they stay, or a reader would take them for begun anew.
        self._starts_ns: dict[str, int] = {}
        self._began_ns = time.time_ns()

    def beside(self, data: MetricsData, families: Iterable[Family]) -> MetricsData:
        """What the SDK collected, and the families under the same resource; families without samples are left out."""
        metrics = [metric for family in families if (metric := self._metric(family)) is not None]
        if not metrics or not data.resource_metrics:
            return data
        first, *others = data.resource_metrics
        # One entry per scope: the exporter's encoder keeps only the last of several that are equal.
        own = [metric for each in first.scope_metrics if each.scope == _SCOPE for metric in each.metrics]
        scopes = [each for each in first.scope_metrics if each.scope != _SCOPE]
        scopes.append(ScopeMetrics(scope=_SCOPE, metrics=[*own, *metrics], schema_url=""))
        return MetricsData([replace(first, scope_metrics=scopes), *others])

    def _metric(self, family: Family) -> Metric | None:
        row = CATALOG[family.name]
        keys = allowed_keys(row, self._allowed)
        samples = narrowed(family, keys)
        if not samples:
            return None
        now_ns = int(family.time * 1e9)
        start_ns = self._start_ns(family, now_ns)
        known = self._attributes.get(family.name, {})
        living: dict[LabelValues, dict[str, str]] = {}
        points = []
        for values, value in samples:
            attributes = living[values] = known.get(values) or dict(zip(keys, values, strict=True))
            points.append(_Point(attributes, start_ns, now_ns, float(value)))
        self._attributes[family.name] = living
        as_points = cast(Sequence[NumberDataPoint], points)
        data: Gauge | Sum = Gauge(as_points)
        if row.kind == "counter":
            data = Sum(as_points, AggregationTemporality.CUMULATIVE, is_monotonic=True)
        return Metric(row.name, row.description, row.unit, data)

    def _start_ns(self, family: Family, now_ns: int) -> int:
        """When the family began, and never after its time: one that was not told is older than the first we saw."""
        if family.start is not None:
            return min(int(family.start * 1e9), now_ns)
        start_ns = min(self._starts_ns.get(family.name, self._began_ns), now_ns)
        self._starts_ns[family.name] = start_ns
        return start_ns
