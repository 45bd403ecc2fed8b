"""The one object that a worker records with."""

import logging
import time
import weakref
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Final

from opentelemetry.metrics import MeterProvider, get_meter_provider

from otel_queue import labels
from otel_queue.catalog import ATTEMPTS
from otel_queue.errors import OtelQueueError
from otel_queue.fork import call_in_children
from otel_queue.lifecycle import (
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    Label,
    ProjectDescribed,
    Record,
    StatusSet,
)
from otel_queue.recorder import instruments, miss
from otel_queue.recorder.asynchronous import AsynchronousRecorder
from otel_queue.recorder.group import Group, Kept, group_of, open_group
from otel_queue.recorder.miss import Miss
from otel_queue.recorder.preaggregated import MOST_SETS, LabelledHistogram, Told
from otel_queue.recorder.writer import Writer
from otel_queue.version import __version__

_log: Final = logging.getLogger(__name__)

SCOPE: Final = "otel_queue"
_MOST_CODES: Final = 1_000

_providers: "weakref.WeakSet[MeterProvider]" = weakref.WeakSet()


def _now_us() -> int:
    return time.time_ns() // 1_000


class Recorder:
    """Records what happened, in two places: OpenTelemetry instruments and, with a `writer`, the ledger.

    One object serves a whole process: threads, coroutines (see `asynchronous`) and forked children, which begin
    with nothing of their parent's. No method but `committed` raises for the values it is given or for what Redis
    does: what cannot be recorded is counted in otel_queue_errors_total{lane="recorder"}.

    Without `meter_provider` the application's own is used, also when it is set later; `otel_queue.views` says what
    that one needs. A MeterProvider can have one recorder, since the SDK ignores the callbacks of an instrument
    that is created twice: OtelQueueError, as for a `writer` that is none. What the writer could not write is counted
    in otel_queue_errors_total{lane="ledger"}.
    """

    def __init__(
        self,
        meter_provider: MeterProvider | None = None,
        *,
        writer: Writer | None = None,
        most_label_sets: int = MOST_SETS,
        now_us: Callable[[], int] = _now_us,
    ) -> None:
        provider = meter_provider or get_meter_provider()
        self._writer = _checked(writer)
        _claim(provider)
        self._now_us = now_us
        self._codes: dict[str | int | None, str] = {None: labels.NO_RESPONSE}
        self._instruments = instruments.WorkerInstruments(provider.get_meter(SCOPE, __version__), most_label_sets)
        self._instruments.watch(writer)
        counters, histograms = self._instruments.counters, self._instruments.histograms
        self._attempts = counters[ATTEMPTS]
        self._ingested = counters[instruments.INGESTED]
        self._ingest_succeeded = counters[instruments.INGEST_SUCCEEDED]
        self._ingest_failed = counters[instruments.INGEST_FAILED]
        self._rate_limited = counters[instruments.RATE_LIMITED]
        self._sent = counters[instruments.SENT]
        self._outcomes = counters[instruments.OUTCOMES]
        self._in_progress = counters[instruments.IN_PROGRESS]
        self._errors = counters[instruments.ERRORS]
        self._end_to_end = histograms[instruments.END_TO_END]
        self._attempt_duration = histograms[instruments.ATTEMPT_DURATION]
        self._process_duration = histograms[instruments.PROCESS_DURATION]
        self._wait = histograms[instruments.WAIT]
        self.asynchronous = AsynchronousRecorder(self)
        call_in_children(self._after_fork)

    # Lifecycle ---------------------------------------------------------------------------------------------------

    def event_created(self, *, project: str, event_id: str, source: Label = UNTOLD, time_us: int | None = None) -> Kept:
        """An event's row exists. `time_us`, here and below: Unix microseconds, now where it is not given."""
        try:
            record = EventCreated(
                miss.identifier("bad_project", project),
                miss.identifier("bad_id", event_id),
                self._time(time_us),
                miss.label(source),
            )
        except Exception as error:
            return self._missed(error)
        return self._keep(record)

    def delivery_created(
        self,
        *,
        project: str,
        delivery_id: str,
        endpoint: Label = UNTOLD,
        event_type: Label = UNTOLD,
        source: Label = UNTOLD,
        status: str = "scheduled",
        created_us: int | None = None,
        time_us: int | None = None,
    ) -> Kept:
        """A delivery's row exists; `created_us` is its created_at, where it is known."""
        try:
            record = DeliveryCreated(
                miss.identifier("bad_project", project),
                miss.identifier("bad_id", delivery_id),
                self._time(time_us),
                miss.label(endpoint),
                miss.label(event_type),
                miss.label(source),
                miss.status(status),
                None if created_us is None else miss.time_us(created_us),
            )
        except Exception as error:
            return self._missed(error)
        return self._keep(record)

    def status_set(
        self,
        *,
        project: str,
        delivery_id: str,
        status: str,
        endpoint: Label = UNTOLD,
        event_type: Label = UNTOLD,
        source: Label = UNTOLD,
        created_us: int | None = None,
        time_us: int | None = None,
    ) -> Kept:
        """A delivery's status was written."""
        try:
            record = StatusSet(
                miss.identifier("bad_project", project),
                miss.identifier("bad_id", delivery_id),
                miss.status(status),
                self._time(time_us),
                miss.label(endpoint),
                miss.label(event_type),
                miss.label(source),
                None if created_us is None else miss.time_us(created_us),
            )
        except Exception as error:
            return self._missed(error)
        return self._keep(record)

    def attempt_made(
        self,
        *,
        project: str,
        attempt_id: str,
        succeeded: bool,
        endpoint: Label = UNTOLD,
        http_status: str | int | None = None,
        duration_seconds: float | None = None,
        time_us: int | None = None,
    ) -> Kept:
        """One HTTP call was made for a delivery; `http_status` is None without a response."""
        try:
            if type(succeeded) is not bool:
                raise Miss("bad_type", f"succeeded is {type(succeeded).__name__}, not bool")
            miss.identifier("bad_project", project)
            miss.identifier("bad_id", attempt_id)
            miss.label(endpoint)
            if time_us is not None:
                miss.time_us(time_us)
            status = labels.outcome(succeeded)
            self._attempts.add((project, endpoint, status, self._codes.get(http_status) or self._code(http_status)))
            if duration_seconds is not None:
                self._observe(self._attempt_duration, (project, endpoint, status), duration_seconds)
            if self._writer is None:
                return "unstored"
            record = AttemptMade(project, attempt_id, time_us or self._now_us(), endpoint, succeeded, http_status)
        except Exception as error:
            return self._missed(error)
        return self._keep(record)

    def project_described(
        self,
        *,
        project: str,
        project_name: str = "",
        organisation_id: str = "",
        organisation_name: str = "",
        time_us: int | None = None,
    ) -> Kept:
        """A project and its organisation have these names now."""
        try:
            record = ProjectDescribed(
                miss.identifier("bad_project", project),
                self._time(time_us),
                miss.text(project_name),
                miss.text(organisation_id),
                miss.text(organisation_name),
            )
        except Exception as error:
            return self._missed(error)
        return self._keep(record)

    def day_expired(self, *, project: str, day: str) -> Kept:
        """The rows of a project created on this UTC day (YYYYMMDD) and before are gone."""
        try:
            record = DayExpired(miss.identifier("bad_project", project), miss.day(day))
        except Exception as error:
            return self._missed(error)
        return self._keep(record)

    def grouped(self) -> AbstractContextManager[Group]:
        """Writes the records made inside together when the block ends, as the writer does: they may only be queued.

        They are written also when the block raises, since what they tell has happened. A block inside another one
        joins it. Threads started inside write for themselves.
        """
        return group_of(self._write, must_commit=False)

    def committed(self) -> AbstractContextManager[Group]:
        """As `grouped`; and raises WriteError at the end unless all the records have reached the ledger.

        A task that fails with it is delivered again, and does its work again. Begins as `check_commits` says.
        """
        self.check_commits()
        return group_of(self._write, must_commit=True)

    def check_commits(self) -> None:
        """Raises OtelQueueError unless the writer waits for the ledger: no other knows what has reached it."""
        if not self._waits:
            raise OtelQueueError(
                f"committed: the recorder's writer is {type(self._writer).__name__}, which does not wait for the "
                "ledger: every task would fail after its work; use ledger_writer(config, waits=True), or grouped"
            )

    # Instruments alone -------------------------------------------------------------------------------------------

    def ingest(self, project: str, source: Label = None) -> None:
        """An event was offered to ingestion; a source of None is the gateway's own API."""
        try:
            self._ingested.add((miss.identifier("bad_project", project), miss.label(source)))
        except Exception as error:
            self._missed(error)

    def ingest_succeeded(self, project: str, source: Label = None) -> None:
        """An event was ingested and consumed."""
        try:
            self._ingest_succeeded.add((miss.identifier("bad_project", project), miss.label(source)))
        except Exception as error:
            self._missed(error)

    def ingest_failed(self, project: str, source: Label = None) -> None:
        """Ingesting an event failed."""
        try:
            self._ingest_failed.add((miss.identifier("bad_project", project), miss.label(source)))
        except Exception as error:
            self._missed(error)

    def rate_limited(self, bucket: str, outcome: str) -> None:
        """A rate limiter did anything but allow."""
        try:
            self._rate_limited.add((miss.text(bucket), miss.text(outcome)))
        except Exception as error:
            self._missed(error)

    def end_to_end(self, project: str, endpoint: Label, seconds: float) -> None:
        """An event was delivered so long after it was accepted; negative times, here and below, count as 0."""
        self._observe(self._end_to_end, (project, endpoint), seconds)

    def task_sent(self, queue: str, task_type: str) -> None:
        """A task was enqueued."""
        try:
            self._sent.add((queue, task_type))
        except Exception as error:
            self._missed(error)

    def task_started(self, queue: str, task_type: str, wait_seconds: float | None = None) -> None:
        """A handler begins, so long after its task was enqueued."""
        try:
            self._in_progress.add((queue, task_type))
        except Exception as error:
            self._missed(error)
        if wait_seconds is not None:
            self._observe(self._wait, (queue, task_type), wait_seconds)

    def task_finished(self, queue: str, task_type: str, outcome: str, seconds: float) -> None:
        """A handler has ended; `task_started` came before, in the same process."""
        try:
            self._in_progress.add((queue, task_type), -1)
            self._outcomes.add((queue, task_type, outcome))
        except Exception as error:
            self._missed(error)
        self._observe(self._process_duration, (queue, task_type, outcome), seconds)

    def missed(self, reason: str) -> None:
        """Counts something that could not be recorded; `reason` is one word from a bounded set."""
        self._errors.add(("recorder", reason))

    # Composition -------------------------------------------------------------------------------------------------

    def bind(self, meter_provider: MeterProvider, writer: Writer | None) -> None:
        """Uses these from now on. A forked child needs it: its parent's may be locked, and share a connection."""
        _claim(meter_provider)
        self._writer = writer
        self._instruments.bind(meter_provider.get_meter(SCOPE, __version__))
        self._instruments.watch(writer)

    @property
    def _waits(self) -> bool:
        return self._writer is not None and self._writer.waits

    def _time(self, told: int | None) -> int:
        return self._now_us() if told is None else miss.time_us(told)

    def _code(self, http_status: object) -> str:
        if not isinstance(http_status, (str, int)):
            raise Miss("bad_type", f"http_status is {type(http_status).__name__}, not text or a number")
        code = labels.http_status_code(http_status)
        if len(self._codes) < _MOST_CODES:
            self._codes[http_status] = code
        return code

    def _observe(self, histogram: LabelledHistogram, told: Told, amount: float) -> None:
        try:
            observed = miss.seconds(amount)
            if observed < 0:
                # The clocks of two machines disagree.
                self.missed("negative_duration")
                observed = 0.0
            histogram.record(told, observed)
        except Exception as error:
            self._missed(error)

    def _keep(self, record: Record) -> Kept:
        if self._writer is None:
            return "unstored"
        group = open_group(self._write)
        if group is not None:
            group.add(record)
            return "grouped"
        return self._write((record,))

    def _write(self, records: Sequence[Record], waiting_since: float | None = None) -> Kept:
        if self._writer is None:
            return "unstored"
        try:
            return self._writer.write(records, waiting_since)
        except Exception as error:
            return self._missed(error)

    def _missed(self, error: Exception) -> Kept:
        if isinstance(error, Miss):
            reason = error.reason
            _log.debug("not recorded: %s", error)
        elif isinstance(error, TypeError):
            reason = "bad_type"
            _log.debug("not recorded: %s", error)
        else:
            reason = "internal"
            _log.exception("not recorded")
        self._errors.add(("recorder", reason))
        return "missed"

    def _after_fork(self) -> None:
        self._instruments.reset()


def _claim(provider: MeterProvider) -> None:
    if provider in _providers:
        raise OtelQueueError(
            f"{type(provider).__name__} has a Recorder already, and its callbacks would win; share that recorder"
        )
    _providers.add(provider)


def _checked(writer: Writer | None) -> Writer | None:
    if writer is not None and not isinstance(writer, Writer):
        raise OtelQueueError(
            f"writer is a {type(writer).__name__}, which lacks write, close, errors or waits; "
            "give what otel_queue.ledger_writer returns"
        )
    return writer
