"""A task in a handler's hands: what it is, and what the handler reports of it."""

from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import cached_property
from operator import attrgetter
from typing import Final

from otel_queue import labels
from otel_queue.asynq.payload import PayloadError, PayloadLabels, read_payload
from otel_queue.lifecycle import UNTOLD, Label
from otel_queue.middleware.headers import ENDPOINT, EVENT_TYPE, PROJECT, SOURCE, label_in
from otel_queue.recorder import Recorder
from otel_queue.recorder.group import Kept
from otel_queue.ulid import new_ulid

_FAILED: Final = ("retry", "failure")
_OF_PAYLOAD: Final = {
    SOURCE: attrgetter("source"),
    ENDPOINT: attrgetter("endpoint"),
    EVENT_TYPE: attrgetter("event_type"),
}

current: ContextVar["Task | None"] = ContextVar("otel_queue_task", default=None)


@dataclass
class Task:
    """A task as a handler gets it; fields as asynq's. Outside of `recorded` its reports go nowhere."""

    type: str
    payload: bytes = b""
    queue: str = "default"
    headers: dict[str, str] = field(default_factory=dict)
    id: str = ""
    retried: int = 0
    max_retry: int = 25
    _run: "Run | None" = field(default=None, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        self.headers = dict(self.headers or {})

    def report_attempt(
        self,
        http_status: str | int | None = None,
        *,
        succeeded: bool | None = None,
        attempt_id: str | None = None,
        duration_seconds: float | None = None,
        time_us: int | None = None,
    ) -> Kept:
        """The handler made one HTTP call, whatever it returns or raises afterwards.

        `succeeded` follows from the status where it is not given: 2xx or not. Give `attempt_id` where the attempt
        has a row, so that it is counted once however often it is reported; without it every report is one.
        """
        run = self._run
        if run is None:
            return "unstored"
        code = labels.http_status_code(http_status) if isinstance(http_status, (str, int)) else labels.NO_RESPONSE
        success = code.startswith("2") if succeeded is None else succeeded
        run.outcome = labels.outcome(success)
        return run.recorder.attempt_made(
            project=run.project,
            attempt_id=new_ulid() if attempt_id is None else attempt_id,
            succeeded=success,
            endpoint=run.told(ENDPOINT),
            http_status=http_status,
            duration_seconds=duration_seconds,
            time_us=time_us,
        )

    def report_status(
        self,
        status: str,
        *,
        delivery_id: str | None = None,
        created_us: int | None = None,
        time_us: int | None = None,
    ) -> Kept:
        """The handler wrote this status of the task's delivery: the payload's, else the one with the task's id."""
        run = self._run
        if run is None:
            return "unstored"
        if isinstance(status, str) and status.lower() in _FAILED:
            run.outcome = labels.outcome(False)
        return run.recorder.status_set(
            project=run.project,
            delivery_id=(run.payload.delivery_id or self.id) if delivery_id is None else delivery_id,
            status=status,
            endpoint=run.told(ENDPOINT),
            event_type=run.told(EVENT_TYPE),
            source=run.told(SOURCE),
            created_us=created_us,
            time_us=time_us,
        )


class Run:
    """One run of a handler. `outcome` is what it reported last; a handler that raises has failed all the same."""

    def __init__(self, recorder: Recorder, task: Task) -> None:
        self.recorder = recorder
        self.outcome = labels.outcome(True)
        self._task = task

    @property
    def project(self) -> str:
        """The header's, else the payload's; "" for none."""
        return self._task.headers.get(PROJECT) or self.payload.project

    def told(self, name: str) -> Label:
        """The label of this header, else the payload's."""
        label = label_in(self._task.headers, name)
        return _OF_PAYLOAD[name](self.payload) if label is UNTOLD else label

    @cached_property
    def payload(self) -> PayloadLabels:
        """What the payload says; it is read once, and not before somebody asks for what no header tells."""
        try:
            return read_payload(self._task.payload)
        except PayloadError as error:
            # With a header it may be anybody's, and need not tell anything.
            if error.reason != "bad_payload" or not self._task.headers.get(PROJECT):
                self.recorder.missed(error.reason)
            return PayloadLabels()


def current_task() -> Task | None:
    """The task whose handler runs here, in this thread or coroutine; None outside of `recorded`."""
    return current.get()
