"""What Convoy's servers and agents do with a task: create, match, deliver, retry, give up."""

from collections.abc import Callable, Mapping
from functools import partial
from random import Random
from typing import Any, Final

from otel_queue.asynq.message import TaskMessage
from otel_queue.demo import payloads
from otel_queue.demo.agent import Run, TaskFailedError
from otel_queue.demo.broker import Broker
from otel_queue.demo.digest import Digest
from otel_queue.demo.hooks import Hooks
from otel_queue.demo.identity import ulid
from otel_queue.demo.tenants import Deliveries, Delivery, Endpoint, Event, Project

_BROADCAST_SHARE: Final = 0.08
_BROKEN_BROADCAST_SHARE: Final = 0.08
_META_EVENT_SHARE: Final = 0.25
_BATCH_RETRY_LIMIT: Final = 10
_MIN_RETRIES: Final = 25  # asynq's budget is only a backstop: the number of trials decides


class Convoy:
    """The API that accepts events, and the handlers of Convoy's queues.

    Only delivery rows are remembered; everything else travels in the tasks, as it does in Convoy.
    """

    def __init__(
        self, broker: Broker, rng: Random, projects: tuple[Project, ...], digest: Digest, hooks: Hooks
    ) -> None:
        self._broker = broker
        self._rng = rng
        self._digest = digest
        self._hooks = hooks
        self._projects = {project.id: project for project in projects}
        self._endpoints = {endpoint.id: endpoint for project in projects for endpoint in project.endpoints}
        self.deliveries = Deliveries()
        self._handlers: Mapping[str, Callable[[TaskMessage, dict[str, Any]], None]] = {
            payloads.CREATE_EVENT: self._create,
            payloads.CREATE_BROADCAST_EVENT: self._create_broadcast,
            payloads.MATCH_SUBSCRIPTIONS: self._match,
            payloads.BATCH_RETRY: self._retry_batch,
        }

    # The API

    def accept_event(self) -> None:
        """An event arrives: only a task is written, there is no row yet."""
        projects = list(self._projects.values())
        project = self._rng.choices(projects, [each.weight for each in projects])[0]
        now = self._broker.clock()
        event = Event(
            id=ulid(now, self._rng),
            project_id=project.id,
            source_id=self._rng.choice(project.source_ids),
            type=self._rng.choice(project.event_types),
            amount=self._rng.randrange(1, 10_000),
            acknowledged_at=now,
        )
        if self._rng.random() < _BROADCAST_SHARE:
            payload, task_type, path = (
                payloads.create_broadcast_event(event),
                payloads.CREATE_BROADCAST_EVENT,
                "broadcast",
            )
        else:
            payload, task_type, path = payloads.create_event(event), payloads.CREATE_EVENT, "single"
        self._write(task_type, payloads.CREATE_EVENT_QUEUE, f"{path}:{project.id}:{event.id}", payload)

    def retry_failed(self) -> None:
        """An operator asks for a batch retry in the first project that has failed deliveries."""
        for project_id in self._projects:
            failed = self.deliveries.failed(project_id, _BATCH_RETRY_LIMIT)
            if failed:
                now = self._broker.clock()
                batch_id = ulid(now, self._rng)
                payload = payloads.batch_retry(batch_id, project_id, len(failed), now)
                self._write(payloads.BATCH_RETRY, payloads.BATCH_RETRY_QUEUE, batch_id, payload)
                return

    # The handlers

    def start(self, task: TaskMessage) -> Run:
        """Work on a task of any of Convoy's queues; most periodic tasks do nothing here."""
        if task.type in (payloads.DELIVER, payloads.RETRY_DELIVERY):
            return self._deliver(task)
        if task.type == payloads.DELETE_ARCHIVED:
            return Run(0.2, self._delete_archived)
        handler = self._handlers.get(task.type)
        if handler is None:
            return Run(self._rng.uniform(0.1, 0.6), lambda: None)
        return Run(self._rng.uniform(0.02, 0.08), partial(handler, task, payloads.decode(task.payload)))

    def _create(self, _task: TaskMessage, fields: dict[str, Any]) -> None:
        params = fields["Params"]
        self._write_match(self._event(params["uid"], params), "default")

    def _create_broadcast(self, task: TaskMessage, fields: dict[str, Any]) -> None:
        # A crash between insert and enqueue does not heal: each retry meets the row that is already there.
        if task.retried or self._rng.random() < _BROKEN_BROADCAST_SHARE:
            raise TaskFailedError("duplicate key value violates unique constraint", retry_seconds=2)
        self._write_match(self._event(fields["event_id"], fields), "broadcast")

    def _match(self, _task: TaskMessage, fields: dict[str, Any]) -> None:
        row, channel = fields["Event"], fields["Config"]["Channel"]
        project = self._projects.get(row["project_id"])
        now = self._broker.clock()
        for endpoint in project.endpoints if project else ():
            if channel != "broadcast" and not endpoint.accepts(row["event_type"]):
                continue
            assert project is not None
            delivery = Delivery(
                id=ulid(now, self._rng),
                project_id=project.id,
                event_id=row["uid"],
                endpoint_id=endpoint.id,
                event_type=row["event_type"],
                acknowledged_at=now,
                retry_limit=project.retry_limit,
                interval_seconds=project.interval_seconds,
            )
            self.deliveries.add(delivery)
            self._hooks.delivery_created(delivery, row["source_id"])
            payload = payloads.deliver(delivery, endpoint)
            self._write(payloads.DELIVER, payloads.EVENT_QUEUE, delivery.id, payload)

    def _deliver(self, task: TaskMessage) -> Run:
        delivery = self._delivery(payloads.decode(task.payload))
        retrying = task.type == payloads.RETRY_DELIVERY
        if delivery is None or (retrying and delivery.status == "Processing"):
            # Done already; or a worker died while it sent a retry: the row stays in Processing for ever.
            return Run(0.01, lambda: None)
        endpoint = self._endpoints.get(delivery.endpoint_id)
        if endpoint is None:
            self._set_status(delivery, "Discarded")
            return Run(0.01, lambda: None)
        self._set_status(delivery, "Processing")
        seconds = self._rng.uniform(*endpoint.latency_seconds)
        return Run(seconds, partial(self._attempt, task, delivery, endpoint))

    def _attempt(self, task: TaskMessage, delivery: Delivery, endpoint: Endpoint) -> None:
        now = self._broker.clock()
        delivery.num_trials += 1
        answered = endpoint.respond(now, self._rng)
        http_status = 200 if answered else (None if endpoint.is_out(now) else 500)
        self._hooks.attempt_made(delivery, endpoint, http_status)
        if answered:
            self._set_status(delivery, "Success")
            self._tell_owner(delivery)
            return
        self._digest.probe(endpoint)
        answered_no = endpoint.delivery_mode == "at_most_once" and not endpoint.is_out(now)
        if answered_no or delivery.num_trials >= delivery.retry_limit:
            self._set_status(delivery, "Failure")
            self._tell_owner(delivery)
            self._digest.notice(delivery)
            return
        self._set_status(delivery, "Retry")
        if task.type == payloads.RETRY_DELIVERY:
            raise TaskFailedError(f"delivery to {endpoint.url} failed", delivery.interval_seconds)
        # The first queue's task always ends well: the work moves on.
        self._write(
            payloads.RETRY_DELIVERY,
            payloads.RETRY_EVENT_QUEUE,
            delivery.id,
            task.payload,
            process_at=now + delivery.interval_seconds,
            retries=max(_MIN_RETRIES, delivery.retry_limit),
        )

    def _retry_batch(self, _task: TaskMessage, fields: dict[str, Any]) -> None:
        for delivery in self.deliveries.failed(fields["project_id"], _BATCH_RETRY_LIMIT):
            payload = payloads.deliver(delivery, endpoint=None)
            self._write(payloads.DELIVER, payloads.EVENT_QUEUE, delivery.id, payload)

    def _delete_archived(self) -> None:
        for queue in payloads.CLEANED_QUEUES:
            self._broker.delete_archived(queue)

    # Steps that the handlers share

    def _set_status(self, delivery: Delivery, status: str) -> None:
        self.deliveries.set_status(delivery, status)
        self._hooks.status_set(delivery)

    def _tell_owner(self, delivery: Delivery) -> None:
        if self._rng.random() < _META_EVENT_SHARE:
            meta_event_id = ulid(self._broker.clock(), self._rng)
            payload = payloads.meta_event(meta_event_id, delivery.project_id)
            task_id = f"meta:{delivery.project_id}:{meta_event_id}"
            self._write(payloads.META_EVENT, payloads.META_EVENT_QUEUE, task_id, payload)

    def _event(self, event_id: str, fields: dict[str, Any]) -> Event:
        return Event(
            id=event_id,
            project_id=fields["project_id"],
            source_id=fields["source_id"],
            type=fields["event_type"],
            amount=len(fields["data"]),
            acknowledged_at=fields["acknowledged_at"].to_unix(),
            idempotency_key=fields["idempotency_key"],
        )

    def _write_match(self, event: Event, channel: str) -> None:
        self._hooks.event_created(event)
        self._write(
            payloads.MATCH_SUBSCRIPTIONS,
            payloads.EVENT_WORKFLOW_QUEUE,
            f"match_subs:{event.project_id}:{event.id}",
            payloads.match_subscriptions(event, channel),
        )

    def _delivery(self, fields: dict[str, Any]) -> Delivery | None:
        """The row, or what the snapshot says of it when an earlier run of the demo left the task behind."""
        row = self.deliveries.find(fields["EventDeliveryID"])
        snapshot = fields["Snapshot"]
        if row is not None or snapshot is None:
            return row
        row = Delivery(
            id=snapshot["uid"],
            project_id=snapshot["project_id"],
            event_id=snapshot["event_id"],
            endpoint_id=snapshot["endpoint_id"],
            event_type=snapshot["event_type"],
            acknowledged_at=self._broker.clock(),
            retry_limit=snapshot["metadata"]["retry_limit"],
            interval_seconds=snapshot["metadata"]["interval_seconds"],
        )
        self.deliveries.add(row)
        return row

    def _write(
        self,
        task_type: str,
        queue: str,
        task_id: str,
        payload: bytes,
        *,
        process_at: float = 0.0,
        retries: int = _MIN_RETRIES,
    ) -> None:
        self._broker.enqueue(TaskMessage(task_type, payload, task_id, queue, retries), process_at=process_at)
