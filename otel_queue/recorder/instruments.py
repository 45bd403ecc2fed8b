"""The worker's instruments, made from the catalog's rows through the Metrics API."""

import platform
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Final

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from otel_queue.catalog import ATTEMPTS, CATALOG
from otel_queue.recorder.preaggregated import LabelledHistogram, PreaggregatedCounter
from otel_queue.recorder.writer import Writer
from otel_queue.version import __version__

ATTEMPT_DURATION: Final = "convoy_event_delivery_attempt_duration_seconds"
END_TO_END: Final = "convoy_end_to_end_latency"
INGESTED: Final = "convoy_ingest_total"
INGEST_SUCCEEDED: Final = "convoy_ingest_success"
INGEST_FAILED: Final = "convoy_ingest_error"
RATE_LIMITED: Final = "convoy_rate_limit_total"
SENT: Final = "asynq_tasks_sent_total"
OUTCOMES: Final = "asynq_task_outcomes_total"
IN_PROGRESS: Final = "asynq_tasks_in_progress"
PROCESS_DURATION: Final = "asynq_task_process_duration_seconds"
WAIT: Final = "asynq_task_wait_seconds"
ERRORS: Final = "otel_queue_errors_total"
DROPPED_LABELS: Final = "otel_queue_dropped_labels_total"
BUILD_INFO: Final = "otel_queue_build_info"

# In the order in which they hand over: what one of them adds to another is in the same collection.
_COUNTERS: Final = (
    ATTEMPTS, INGESTED, INGEST_SUCCEEDED, INGEST_FAILED, RATE_LIMITED, SENT, OUTCOMES, IN_PROGRESS,
    ERRORS, DROPPED_LABELS,
)  # fmt: skip
_HISTOGRAMS: Final = (END_TO_END, ATTEMPT_DURATION, PROCESS_DURATION, WAIT)

NAMES: Final = frozenset((*_COUNTERS, *_HISTOGRAMS, BUILD_INFO))
"""Every metric that a worker exports."""


class WorkerInstruments:
    """Counters and histograms by name, bound to one meter at a time.

    Counters are handed over by the callback of an observable instrument, which runs before a collection reads the
    others.
    """

    def __init__(self, meter: Meter, most_sets: int) -> None:
        self.dropped_labels = PreaggregatedCounter(DROPPED_LABELS, CATALOG[DROPPED_LABELS].keys, None, most_sets)
        self.counters = {name: self._counter(name, most_sets) for name in _COUNTERS}
        self.histograms = {
            name: LabelledHistogram(name, CATALOG[name].keys, self.dropped_labels, most_sets) for name in _HISTOGRAMS
        }
        self._errors = self.counters[ERRORS]
        self._writer: Writer | None = None
        self._reported: Counter[str] = Counter()
        self.bind(meter)

    def _counter(self, name: str, most_sets: int) -> PreaggregatedCounter:
        if name == DROPPED_LABELS:
            return self.dropped_labels
        return PreaggregatedCounter(name, CATALOG[name].keys, self.dropped_labels, most_sets)

    def bind(self, meter: Meter) -> None:
        """Creates every instrument with this meter and uses them from now on."""
        for name, counter in self.counters.items():
            row = CATALOG[name]
            create = meter.create_up_down_counter if row.kind == "updowncounter" else meter.create_counter
            counter.bind(create(name, unit=row.unit, description=row.description).add)
        for name, histogram in self.histograms.items():
            row = CATALOG[name]
            histogram.bind(
                meter.create_histogram(
                    name,
                    unit=row.unit,
                    description=row.description,
                    explicit_bucket_boundaries_advisory=row.boundaries,
                )
            )
        row = CATALOG[BUILD_INFO]
        meter.create_observable_gauge(
            BUILD_INFO, callbacks=[self._collected], unit=row.unit, description=row.description
        )

    def reset(self) -> None:
        """For a forked child: what is pending is the parent's."""
        for counter in self.counters.values():
            counter.reset()
        self._reported = Counter(self._ledger_errors())

    def watch(self, writer: Writer | None) -> None:
        """Reports what this writer could not write, by reason, as errors of the ledger lane."""
        self._writer = writer
        self._reported.clear()

    def _collected(self, _: CallbackOptions) -> Iterable[Observation]:
        self.hand_over()
        return _build_info()

    def hand_over(self) -> None:
        """Gives the instruments what was counted since the last time."""
        self._report_ledger_errors()
        for name, counter in self.counters.items():
            refused = counter.hand_over()
            if refused and name != ERRORS:
                self._errors.add(("recorder", "bad_label"), refused)

    def _ledger_errors(self) -> Mapping[str, int]:
        return {} if self._writer is None else self._writer.errors()

    def _report_ledger_errors(self) -> None:
        for reason, total in self._ledger_errors().items():
            grown = total - self._reported[reason]
            if grown > 0:
                self._reported[reason] = total
                self._errors.add(("ledger", reason), grown)


def _build_info() -> Iterator[Observation]:
    yield Observation(1, {"version": __version__, "python_version": platform.python_version()})
