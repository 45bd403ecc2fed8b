"""OTLP push: the stock exporters, on a ticker that outlives errors and shuts down in bounded time."""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Final

from opentelemetry.sdk import metrics as sdk
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)
from opentelemetry.sdk.metrics.view import (
    Aggregation,
    ExplicitBucketHistogramAggregation,
    ExponentialBucketHistogramAggregation,
)

from otel_queue.config import OpenTelemetryConfig
from otel_queue.errors import ConfigError
from otel_queue.recent_errors import RecentErrors
from otel_queue.status import LaneState

_log: Final = logging.getLogger(__name__)

# gRPC refuses messages over 4 MB, which is about 28,000 points.
_GRPC_BATCH: Final = 10_000
# By preference, as the specification has them; what is not listed is cumulative.
_DELTAS: Final[dict[str, tuple[type, ...]]] = {
    "cumulative": (),
    "delta": (sdk.Counter, sdk.ObservableCounter, sdk.Histogram),
    "lowmemory": (sdk.Counter, sdk.Histogram),
}
_INSTRUMENTS: Final = (
    sdk.Counter, sdk.UpDownCounter, sdk.Histogram,
    sdk.ObservableCounter, sdk.ObservableUpDownCounter, sdk.ObservableGauge,
)  # fmt: skip
Collection = Callable[[float | None], AbstractContextManager[object]]
Completion = Callable[[MetricsData], MetricsData]
# The last push reads for this part of its time, and is sent in the rest.
_READING: Final = 0.5


def otlp_exporter(settings: OpenTelemetryConfig, *, most_points: int | None = _GRPC_BATCH) -> MetricExporter:
    """The stock exporter that the settings ask for.

    An export, with all its retries, gives up after the timeout. By gRPC it is sent in messages of `most_points`.
    """
    headers = {name: value.reveal() for name, value in settings.headers.items()}
    deltas = _DELTAS[settings.temporality]
    temporality: dict[type, AggregationTemporality] = {
        kind: AggregationTemporality.DELTA if kind in deltas else AggregationTemporality.CUMULATIVE
        for kind in _INSTRUMENTS
    }
    is_exponential = settings.histograms == "base2_exponential_bucket_histogram"
    histogram = ExponentialBucketHistogramAggregation() if is_exponential else ExplicitBucketHistogramAggregation()
    aggregation: dict[type, Aggregation] = {sdk.Histogram: histogram}
    if settings.protocol == "grpc":
        import grpc
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return GrpcExporter(
            endpoint=settings.endpoint,
            insecure=settings.is_insecure,
            credentials=None if settings.is_insecure else _credentials(settings),
            headers=headers,
            timeout=settings.timeout_seconds,
            compression=grpc.Compression.Gzip if settings.compression == "gzip" else grpc.Compression.NoCompression,
            preferred_temporality=temporality,
            preferred_aggregation=aggregation,
            max_export_batch_size=most_points,
        )
    from opentelemetry.exporter.otlp.proto.http import Compression
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

    certificate, client, key = (
        None if file is None else str(file)
        for file in (settings.certificate_file, settings.client_certificate_file, settings.client_key_file)
    )
    return HttpExporter(
        endpoint=settings.endpoint,
        certificate_file=certificate,
        client_certificate_file=client,
        client_key_file=key,
        headers=headers,
        timeout=settings.timeout_seconds,
        compression=Compression(settings.compression),
        preferred_temporality=temporality,
        preferred_aggregation=aggregation,
    )


def _credentials(settings: OpenTelemetryConfig) -> Any:
    """For TLS by gRPC; None leaves them to the exporter, which may have a provider of credentials."""
    import grpc

    files = (settings.certificate_file, settings.client_key_file, settings.client_certificate_file)
    if not any(files):
        return None
    try:
        return grpc.ssl_channel_credentials(*(file.read_bytes() if file else None for file in files))
    except OSError as error:
        raise ConfigError([f"{error.filename}: cannot be read: {error.strerror}"]) from error


class _WatchedExporter(MetricExporter):
    """Passes on to an exporter, with what `complete` adds, and remembers how it went: the SDK's reader does not."""

    def __init__(self, exporter: MetricExporter, complete: Completion) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._complete = complete
        self._outcome = threading.local()  # an export runs in the thread that collects

    def error(self, collect: Callable[[], None]) -> str | None:
        """What went wrong in the export that `collect` makes in this thread, "" if nothing says what; else None."""
        self._outcome.error = ""
        collect()
        error: str | None = self._outcome.error
        return error

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        try:
            completed = self._complete(metrics_data)
            result = self._exporter.export(completed, timeout_millis=timeout_millis, **kwargs)
            self._outcome.error = None if result is MetricExportResult.SUCCESS else ""
        except Exception as error:
            self._outcome.error = f"{type(error).__name__}: {error}"
            return MetricExportResult.FAILURE
        return result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Ends the exporter, and with it a retry that may be under way."""
        self._exporter.shutdown(timeout_millis=timeout_millis, **kwargs)


def ticks(
    interval_seconds: float, wait: Callable[[float], bool], now: Callable[[], float] = time.monotonic
) -> Iterator[None]:
    """One at once, then one every `interval_seconds`, until `wait` says that it is over.

    What took longer than the interval skips the ticks it missed.
    """
    due = now()
    while not wait(max(0.0, due - now())):
        yield
        due = max(due + interval_seconds, now())


class OtlpPush:
    """Pushes every `interval_seconds`; each push collects inside the context that `collection` makes for a budget of
    seconds (None: its own), and carries what `complete` adds to the SDK's points.

    No exception ends the thread; a failed push is counted and the next one carries the totals. `target` is what
    the operator sees of where it goes.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        *,
        interval_seconds: float,
        collection: Collection,
        target: str,
        complete: Completion = lambda data: data,
    ) -> None:
        self._exporter = _WatchedExporter(exporter, complete)
        # The reader never ticks by itself: its own thread ends at the first unexpected exception.
        self.reader = PeriodicExportingMetricReader(self._exporter, export_interval_millis=math.inf)
        self.target = target
        self._interval = interval_seconds
        self._collection = collection
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._errors: Counter[str] = Counter()
        self._up: bool | None = None
        self._duration: float | None = None
        self._succeeded: float | None = None  # by the monotonic clock
        self._last_success: float | None = None  # Unix time
        self._last_error: str | None = None
        self._recent = RecentErrors("otlp")
        self._thread = threading.Thread(target=self._tick, name="otel-queue-otlp", daemon=True)

    def start(self) -> None:
        """Starts the ticker; the first push comes at once."""
        self._thread.start()

    def state(self) -> LaneState:
        """How pushing is doing; the age is that of the last success."""
        with self._lock:
            age = None if self._succeeded is None else time.monotonic() - self._succeeded
            return LaneState(
                name="otlp",
                up=self._up,
                duration_seconds=self._duration,
                last_success=self._last_success,
                age_seconds=age,
                errors=dict(self._errors),
                last_error=self._last_error,
                source=self.target,
                recent=self._recent.newest_first(),
            )

    def push(self) -> bool:
        """Collects and exports once, and says whether that arrived; failures are counted, not raised."""
        return self._push(None, self._stop.is_set)

    def shutdown(self, timeout_seconds: float) -> bool:
        """Stops the ticker and pushes a last time; returns within `timeout_seconds` whatever the collector does.

        True if the last push arrived. It reads for half of that time at most, and takes what there is by then.
        """
        deadline = time.monotonic() + timeout_seconds
        self._stop.set()
        arrived: list[bool] = []
        budget = timeout_seconds * _READING
        last = threading.Thread(
            target=lambda: arrived.append(self._push(budget, lambda: False)), name="otel-queue-otlp-last", daemon=True
        )
        last.start()
        # The exporter may be sleeping between retries; ending it a little early wakes it up.
        last.join(max(0.0, deadline - time.monotonic() - 0.2))
        in_time = arrived == [True]
        closing = threading.Thread(target=self._exporter.shutdown, name="otel-queue-otlp-close", daemon=True)
        closing.start()
        closing.join(max(0.0, deadline - time.monotonic()))
        return in_time

    def _tick(self) -> None:
        for _ in ticks(self._interval, self._stop.wait):
            self.push()

    def _push(self, budget_seconds: float | None, is_late: Callable[[], bool]) -> bool:
        """`is_late` once it has read: nothing is sent, since the last push has gone ahead of it."""
        started = time.monotonic()
        try:
            with self._collection(budget_seconds):
                if is_late():
                    return False
                error = self._exporter.error(self.reader.collect)
            if error == "":
                error = f"{self.target} did not accept the export; the log says why"
        except Exception as caught:
            error = f"{type(caught).__name__}: {caught}"
        self._settle(error, time.monotonic() - started)
        return error is None

    def _settle(self, error: str | None, duration: float) -> None:
        with self._lock:
            changed = self._up is not (error is None)
            self._duration, self._up = duration, error is None
            if error is None:
                self._succeeded, self._last_success = time.monotonic(), time.time()
            else:
                self._errors["export"] += 1
                self._last_error = error
                self._recent.note("export", error, time.time())
        if changed and error is None:
            _log.info("lane otlp: pushing to %s", self.target)
        elif changed:
            _log.warning("lane otlp: failing: %s", error)


def otlp_push(
    settings: OpenTelemetryConfig, collection: Collection, complete: Completion = lambda data: data
) -> OtlpPush:
    """The push that the settings ask for."""
    return OtlpPush(
        otlp_exporter(settings),
        interval_seconds=settings.interval_seconds,
        collection=collection,
        target=f"OTLP {settings.protocol}",
        complete=complete,
    )
