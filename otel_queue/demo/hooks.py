"""Where Convoy's writes of rows are recorded: the calls that a real Convoy would add."""

from collections.abc import Callable
from random import Random

from otel_queue.demo.identity import ulid
from otel_queue.demo.tenants import Delivery, Endpoint, Event, Project
from otel_queue.recorder import Recorder


class Hooks:
    """Records the domain lane of the simulation; without a recorder, nothing. `clock` is in Unix seconds."""

    def __init__(self, recorder: Recorder | None, clock: Callable[[], float], rng: Random) -> None:
        self._recorder = recorder
        self._clock = clock
        # Of its own, so that recording changes nothing of what the simulation does.
        self._rng = Random(rng.random())

    def described(self, project: Project) -> None:
        """A project has its names."""
        if self._recorder:
            self._recorder.project_described(
                project=project.id,
                project_name=project.name,
                organisation_id=project.organisation_id,
                organisation_name=f"{project.name} Inc",
                time_us=self._now_us(),
            )

    def event_created(self, event: Event) -> None:
        """After the event's row is committed."""
        if self._recorder:
            self._recorder.event_created(
                project=event.project_id, event_id=event.id, source=event.source_id or None, time_us=self._now_us()
            )

    def delivery_created(self, delivery: Delivery, source_id: str) -> None:
        """After the delivery's row is committed."""
        if self._recorder:
            self._recorder.delivery_created(
                project=delivery.project_id,
                delivery_id=delivery.id,
                endpoint=delivery.endpoint_id,
                event_type=delivery.event_type,
                source=source_id or None,
                created_us=int(delivery.acknowledged_at * 1e6),
                time_us=self._now_us(),
            )

    def status_set(self, delivery: Delivery) -> None:
        """After a delivery's status is written; the source is not known there."""
        if self._recorder:
            self._recorder.status_set(
                project=delivery.project_id,
                delivery_id=delivery.id,
                status=delivery.status,
                endpoint=delivery.endpoint_id,
                event_type=delivery.event_type,
                time_us=self._now_us(),
            )

    def attempt_made(self, delivery: Delivery, endpoint: Endpoint, http_status: int | None) -> None:
        """After an attempt's row is committed; no HTTP status without a response."""
        if self._recorder:
            self._recorder.attempt_made(
                project=delivery.project_id,
                attempt_id=ulid(self._clock(), self._rng),
                endpoint=endpoint.id,
                succeeded=http_status is not None and 200 <= http_status < 300,
                http_status=http_status,
                time_us=self._now_us(),
            )

    def _now_us(self) -> int:
        return int(self._clock() * 1e6)
