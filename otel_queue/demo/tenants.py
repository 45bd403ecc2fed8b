"""Whom the demo serves: projects with sources and endpoints, and the rows their database would hold."""

from collections import OrderedDict
from dataclasses import dataclass, replace
from random import Random
from typing import Final

from otel_queue.demo.identity import ulid

_FOUNDED: Final = 1_750_000_000.0  # when the projects were created, seconds
_MAX_DELIVERIES: Final = 5_000


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A customer's URL and its temper.

    `failure_share` of requests fail, and all during the first `outage_seconds` of every `cycle_seconds`.
    """

    id: str
    subscription_id: str
    url: str
    event_types: tuple[str, ...]
    latency_seconds: tuple[float, float] = (0.05, 0.3)
    failure_share: float = 0.01
    outage_seconds: float = 0.0
    cycle_seconds: float = 1.0
    delivery_mode: str = "at_least_once"

    def accepts(self, event_type: str) -> bool:
        """Whether the endpoint is subscribed to the event type."""
        return not self.event_types or event_type in self.event_types

    def is_out(self, now: float) -> bool:
        """Whether the endpoint is in an outage."""
        return now % self.cycle_seconds < self.outage_seconds

    def respond(self, now: float, rng: Random) -> bool:
        """Whether a request made now is answered with success."""
        return rng.random() >= self.failure_share and not self.is_out(now)


@dataclass(frozen=True, slots=True)
class Project:
    """A tenant; its strategy is linear: `retry_limit` attempts, `interval_seconds` apart."""

    id: str
    name: str
    organisation_id: str
    source_ids: tuple[str, ...]
    endpoints: tuple[Endpoint, ...]
    event_types: tuple[str, ...]
    weight: int
    retry_limit: int
    interval_seconds: int


@dataclass(frozen=True, slots=True)
class Event:
    """What a customer sent; an API event has the empty source."""

    id: str
    project_id: str
    source_id: str
    type: str
    amount: int
    acknowledged_at: float
    idempotency_key: str = ""


@dataclass(slots=True)
class Delivery:
    """One event on its way to one endpoint; `status` is one of Convoy's, `num_trials` counts its attempts."""

    id: str
    project_id: str
    event_id: str
    endpoint_id: str
    event_type: str
    acknowledged_at: float
    retry_limit: int
    interval_seconds: int
    status: str = "Scheduled"
    num_trials: int = 0


class Deliveries:
    """The delivery rows that are still of interest; beyond a limit the oldest are forgotten."""

    def __init__(self) -> None:
        self._rows: OrderedDict[str, Delivery] = OrderedDict()

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, delivery: Delivery) -> None:
        """Insert a row."""
        self._rows[delivery.id] = delivery
        if len(self._rows) > _MAX_DELIVERIES:
            self._rows.popitem(last=False)

    def find(self, delivery_id: str) -> Delivery | None:
        """The row, or None when it succeeded, is forgotten, or is another process's."""
        return self._rows.get(delivery_id)

    def set_status(self, delivery: Delivery, status: str) -> None:
        """Every status is written here; a delivery that succeeded is of no further interest."""
        delivery.status = status
        if status == "Success":
            self._rows.pop(delivery.id, None)

    def failed(self, project_id: str, limit: int) -> list[Delivery]:
        """The oldest deliveries of a project that were given up."""
        rows = (row for row in self._rows.values() if row.project_id == project_id and row.status == "Failure")
        return [row for row, _ in zip(rows, range(limit), strict=False)]


def found_projects(rng: Random) -> tuple[Project, ...]:
    """Three projects whose endpoints differ in health; the same for the same seed."""

    def new_id() -> str:
        return ulid(_FOUNDED, rng)

    def endpoint(url: str, *event_types: str) -> Endpoint:
        return Endpoint(new_id(), new_id(), url, event_types)

    return (
        Project(
            id=new_id(),
            name="Payments",
            organisation_id=new_id(),
            source_ids=("", new_id(), new_id()),
            endpoints=(
                endpoint("https://ledger.acme.example/hooks"),
                replace(endpoint("https://crm.acme.example/hooks", "invoice.paid"), failure_share=0.25),
                replace(endpoint("https://slow.acme.example/hooks", "refund.made"), latency_seconds=(4.0, 8.0)),
            ),
            event_types=("invoice.paid", "invoice.sent", "refund.made"),
            weight=5,
            retry_limit=4,
            interval_seconds=5,
        ),
        Project(
            id=new_id(),
            name="Logistics",
            organisation_id=new_id(),
            source_ids=(new_id(),),
            endpoints=(
                replace(endpoint("https://tracking.globex.example/in"), outage_seconds=40.0, cycle_seconds=150.0),
                replace(
                    endpoint("https://partner.globex.example/in", "parcel.lost"),
                    failure_share=0.4,
                    delivery_mode="at_most_once",
                ),
            ),
            event_types=("parcel.sent", "parcel.lost"),
            weight=3,
            retry_limit=3,
            interval_seconds=8,
        ),
        Project(
            id=new_id(),
            name="Sandbox",
            organisation_id=new_id(),
            source_ids=("",),
            endpoints=(replace(endpoint("https://gone.initech.example/"), failure_share=1.0),),
            event_types=("test.ping",),
            weight=1,
            retry_limit=2,
            interval_seconds=3,
        ),
    )
