"""One MeterProvider from the catalog: its Views, and observable instruments over families that are ready.

Callbacks never do I/O, since they run under the SDK's lock: lanes are refreshed first, then collected.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation
from opentelemetry.sdk.metrics import AlwaysOffExemplarFilter, MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader
from opentelemetry.sdk.metrics.view import View
from opentelemetry.sdk.resources import Resource

from otel_queue.catalog import CATALOG, Row
from otel_queue.samples import Family, LabelValues, fold
from otel_queue.version import __version__

SCOPE: Final = "otel_queue"

# The SDK folds attribute sets past 2000 per instrument into one point; 300 queues by seven states are more.
NO_LIMIT: Final = 1_000_000

FamilyLookup = Callable[[str], Family | None]


def allowed_keys(row: Row, attributes: Mapping[str, Sequence[str]]) -> tuple[str, ...]:
    """The attribute keys a metric keeps: those of its row, narrowed by the configuration."""
    chosen = attributes.get(row.name)
    return row.keys if chosen is None else tuple(key for key in row.keys if key in chosen)


def narrowed(family: Family, keys: Sequence[str]) -> Sequence[tuple[LabelValues, float]]:
    """The samples with only the label values of `keys`, combined where they become equal."""
    row = CATALOG[family.name]
    if tuple(keys) == row.keys:
        return family.samples
    kept = [row.keys.index(key) for key in keys]
    return fold(family.samples, kept, row.combine)


def views(attributes: Mapping[str, Sequence[str]] | None = None) -> list[View]:
    """One View per catalog row: its allow list of attribute keys, and room for every series."""
    return [
        View(
            instrument_name=row.name,
            attribute_keys=set(allowed_keys(row, attributes or {})),
            aggregation_cardinality_limit=NO_LIMIT,
        )
        for row in CATALOG.values()
    ]


def meter_provider(
    rows: Iterable[Row],
    lookup: FamilyLookup,
    readers: Sequence[MetricReader],
    resource: Resource,
    attributes: Mapping[str, Sequence[str]],
) -> MeterProvider:
    """A provider whose observable instruments report what `lookup` returns for their names at collection."""
    provider = MeterProvider(
        metric_readers=readers,
        resource=resource,
        # What is measured here has been measured elsewhere: there is nothing to give an example of.
        exemplar_filter=AlwaysOffExemplarFilter(),
        views=views(attributes),
        shutdown_on_exit=False,
    )
    meter = provider.get_meter(SCOPE, __version__)
    for row in rows:
        _observe(meter, row, lookup, allowed_keys(row, attributes))
    return provider


def _observe(meter: Meter, row: Row, lookup: FamilyLookup, keys: tuple[str, ...]) -> None:
    # An observable gauge keeps the last of several observations that a View makes equal: combine them here.

    def callback(_: CallbackOptions) -> Iterable[Observation]:
        family = lookup(row.name)
        if family is None:
            return
        for values, value in narrowed(family, keys):
            yield Observation(value, dict(zip(keys, values, strict=True)))

    create = {
        "gauge": meter.create_observable_gauge,
        "counter": meter.create_observable_counter,
    }[row.kind]
    create(row.name, callbacks=[callback], unit=row.unit, description=row.description)
