"""What the recorder tests read back: points by metric and attributes, and a ledger that is a list."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import HistogramDataPoint, InMemoryMetricReader, NumberDataPoint
from opentelemetry.sdk.metrics.view import View

from otel_queue.lifecycle import Record
from otel_queue.recorder import Recorder
from otel_queue.worker import Store, views

Labels = frozenset[tuple[str, str]]


class ListWriter:
    """Keeps what it is given; `answer` is what it says of it."""

    waits: Final = True

    def __init__(self, answer: Literal["written", "queued", "dropped"] = "written") -> None:
        self.batches: list[list[Record]] = []
        self.failures: Counter[str] = Counter()
        self.answer = answer

    @property
    def records(self) -> list[Record]:
        return [record for batch in self.batches for record in batch]

    def write(
        self, records: Sequence[Record], waiting_since: float | None = None
    ) -> Literal["written", "queued", "dropped"]:
        self.batches.append(list(records))
        return self.answer

    def errors(self) -> Mapping[str, int]:
        return self.failures

    def close(self, timeout_seconds: float) -> bool:
        return True


class Recording:
    """A recorder, and what its one reader gets. `writer` is its ledger."""

    def __init__(
        self,
        *,
        store: Store = "process",
        attributes: Mapping[str, Sequence[str]] | None = None,
        with_views: Sequence[View] | None = None,
        most_label_sets: int = 20_000,
        writer: ListWriter | None = None,
    ) -> None:
        self.reader = InMemoryMetricReader()
        self.provider = MeterProvider(
            metric_readers=[self.reader],
            views=views(store, attributes) if with_views is None else with_views,
            shutdown_on_exit=False,
        )
        self.writer = writer or ListWriter()
        self.recorder = Recorder(self.provider, writer=self.writer, most_label_sets=most_label_sets)

    def sums(self, name: str) -> dict[Labels, float]:
        return sums(self.reader, name)

    def histograms(self, name: str) -> dict[Labels, HistogramDataPoint]:
        return {labels(point): point for point in points(self.reader, name) if isinstance(point, HistogramDataPoint)}

    def misses(self) -> dict[str, float]:
        """How often each reason was counted."""
        return {
            dict(found)["reason"]: value
            for found, value in self.sums("otel_queue_errors_total").items()
            if ("lane", "recorder") in found
        }


def points(reader: InMemoryMetricReader, name: str) -> list[NumberDataPoint | HistogramDataPoint]:
    data = reader.get_metrics_data()
    if data is None:
        return []
    return [
        point
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == name
        for point in metric.data.data_points
        if isinstance(point, (NumberDataPoint, HistogramDataPoint))
    ]


def sums(reader: InMemoryMetricReader, name: str) -> dict[Labels, float]:
    return {labels(point): point.value for point in points(reader, name) if isinstance(point, NumberDataPoint)}


def labels(point: NumberDataPoint | HistogramDataPoint) -> Labels:
    return frozenset((key, str(value)) for key, value in (point.attributes or {}).items())


def of(**pairs: str) -> Labels:
    return frozenset(pairs.items())
