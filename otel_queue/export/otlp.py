"""OTLP push: the stock exporters, on a ticker that outlives errors and shuts down in bounded time."""

import logging
import math
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from opentelemetry.sdk.metrics.export import (
    MetricExporter,
    MetricExportResult,
    MetricsData,
    PeriodicExportingMetricReader,
)

from otel_queue.recent_errors import RecentErrors
from otel_queue.status import LaneState

_log: Final = logging.getLogger(__name__)

# gRPC refuses messages over 4 MB, which is about 28,000 points.
_GRPC_BATCH: Final = 10_000


def otlp_exporter(protocol: str, timeout_seconds: float, *, most_points: int | None = _GRPC_BATCH) -> MetricExporter:
    """The stock exporter for `http/protobuf` or `grpc`; all but its timeout is of OpenTelemetry's standard variables.

    An export, with all its retries, gives up after `timeout_seconds`. By gRPC it is sent in messages of `most_points`.
    """
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter as GrpcExporter

        return GrpcExporter(timeout=timeout_seconds, max_export_batch_size=most_points)
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter as HttpExporter

    return HttpExporter(timeout=timeout_seconds)


class _WatchedExporter(MetricExporter):
    """Passes on to an exporter, with what `complete` adds, and remembers how it went: the SDK's reader does not."""

    def __init__(self, exporter: MetricExporter, complete: Callable[[MetricsData], MetricsData]) -> None:
        super().__init__(exporter._preferred_temporality, exporter._preferred_aggregation)
        self._exporter = exporter
        self._complete = complete
        self.result: MetricExportResult | None = None
        self.error: str | None = None
        self._closed = threading.Event()

    def export(self, metrics_data: MetricsData, timeout_millis: float = 10_000, **kwargs: Any) -> MetricExportResult:
        self.result, self.error = None, None
        try:
            completed = self._complete(metrics_data)
            self.result = self._exporter.export(completed, timeout_millis=timeout_millis, **kwargs)
        except Exception as error:
            self.result, self.error = MetricExportResult.FAILURE, f"{type(error).__name__}: {error}"
        return self.result

    def force_flush(self, timeout_millis: float = 10_000) -> bool:
        return self._exporter.force_flush(timeout_millis)

    def shutdown(self, timeout_millis: float = 30_000, **kwargs: Any) -> None:
        """Ends the exporter once, and with it a retry that may be under way."""
        if not self._closed.is_set():
            self._closed.set()
            self._exporter.shutdown(timeout_millis=timeout_millis, **kwargs)


class OtlpPush:
    """Pushes every `interval_seconds`; each push collects inside the context that `collection` makes, and carries
    what `complete` adds to the SDK's points.

    No exception ends the thread; a failed push is counted and the next one carries the totals. `target` is what
    the operator sees of where it goes.
    """

    def __init__(
        self,
        exporter: MetricExporter,
        *,
        interval_seconds: float,
        collection: Callable[[], AbstractContextManager[None]],
        target: str,
        complete: Callable[[MetricsData], MetricsData] = lambda data: data,
    ) -> None:
        self._exporter = _WatchedExporter(exporter, complete)
        # The reader never ticks by itself: its own thread ends at the first unexpected exception.
        self.reader = PeriodicExportingMetricReader(self._exporter, export_interval_millis=math.inf)
        self.target = target
        self._interval = interval_seconds
        self._collection = collection
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._pushing = threading.Lock()
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

    def push(self) -> None:
        """Collects and exports once; failures are counted, not raised."""
        with self._pushing:
            started = time.monotonic()
            error: str | None = None
            try:
                with self._collection():
                    self.reader.collect()
                if self._exporter.result is not MetricExportResult.SUCCESS:
                    error = self._exporter.error or f"{self.target} did not accept the export; the log says why"
            except Exception as caught:
                error = f"{type(caught).__name__}: {caught}"
            self._settle(error, time.monotonic() - started)

    def shutdown(self, timeout_seconds: float) -> bool:
        """Stops the ticker and pushes a last time; returns within `timeout_seconds` whatever the collector does.

        True if the last push arrived.
        """
        deadline = time.monotonic() + timeout_seconds
        self._stop.set()
        last = threading.Thread(target=self.push, name="otel-queue-otlp-last", daemon=True)
        last.start()
        # The exporter may be sleeping between retries; ending it a little early wakes it up.
        last.join(max(0.0, deadline - time.monotonic() - 0.2))
        arrived = not last.is_alive() and self._up is True
        closing = threading.Thread(target=self._exporter.shutdown, name="otel-queue-otlp-close", daemon=True)
        closing.start()
        closing.join(max(0.0, deadline - time.monotonic()))
        return arrived

    def _tick(self) -> None:
        due = time.monotonic()
        while not self._stop.wait(max(0.0, due - time.monotonic())):
            self.push()
            # A push that took longer than the interval skips the ticks it missed.
            due = max(due + self._interval, time.monotonic())

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
