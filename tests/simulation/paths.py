"""What the gateway's tasks do, write by write, and what their hooks know at each."""

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from otel_queue.lifecycle import UNTOLD, AttemptMade, DeliveryCreated, EventCreated, Label, StatusSet
from tests.ledger.ledgers import day_of
from tests.simulation.tables import AttemptRow, DeliveryRow, EventRow
from tests.simulation.tenants import EVENT_TYPES, SOURCES
from tests.simulation.world import Steps, Work, World

CREATE: Final = "CreateEventQueue"
MATCH: Final = "EventWorkflowQueue"
FIRST: Final = "EventQueue"
RETRY: Final = "RetryEventQueue"

RETRY_DELAYS: Final = (10.0, 60.0, 600.0, 3_600.0, 21_600.0)
RESPONSES_OF_FAILURE: Final = ("503 Service Unavailable", "404 Not Found", "500 Internal Server Error", None)


@dataclass(frozen=True, slots=True)
class Offer:
    """An event as its task carries it. Without `endpoints` its subscriptions say where it goes."""

    id: str
    project: str
    event_type: str
    source: str | None = None
    key: str | None = None
    endpoints: Sequence[str] = ()
    is_broadcast: bool = False


def offer(work: Work) -> None:
    """API, ingest or broker: a task, and no row yet."""
    world, chance = work.world, work.world.chance
    project = chance.choice([each for each in world.tenants.projects.values() if not each.is_deleted])
    offered = Offer(work.new_id(), project.id, chance.choice(EVENT_TYPES))
    kind = chance.random()
    if kind < 0.05:
        offered = replace(offered, is_broadcast=True)
    elif kind < 0.2:
        offered = replace(offered, endpoints=[endpoint.id for endpoint in chance.sample(list(project.endpoints), 3)])
    elif kind < 0.6:
        offered = replace(offered, source=chance.choice(SOURCES))
    if chance.random() < 0.3:
        is_new = not project.keys or chance.random() < 0.85
        if is_new:
            project.keys.append(f"key-{len(project.keys)}")
        offered = replace(offered, key=project.keys[-1] if is_new else chance.choice(project.keys))
    world.enqueue(CREATE, f"{project.id}:{offered.id}", partial(create_event, offered=offered))


def create_event(work: Work, offered: Offer) -> Steps:
    """The row in one transaction, then the match task. A task that comes again meets the row of its first run."""
    world = work.world
    yield 0.01
    row = EventRow(
        offered.id, offered.project, offered.source, offered.event_type, offered.key, offered.endpoints,
        world.database_us,
    )  # fmt: skip
    is_inserted = world.tables.insert_event(row)
    # Behind the duplicate-key error too: the first run may have died before its hook.
    work.tell(EventCreated(row.project, row.id, work.time_us(), row.source))
    if not is_inserted:
        world.happened["event's key is there already"] += 1
        if offered.is_broadcast:
            world.happened["broadcast given up"] += 1
            return None
        held = world.tables.event(row.id)
        if held is None or held.status not in ("Pending", "Retry"):
            return None
        row = held
    world.happened["event " + ("of a source" if row.source else "without a source")] += is_inserted
    yield 0.01
    world.enqueue(MATCH, f"{row.project}:{row.id}", partial(match, row=row, is_broadcast=offered.is_broadcast))
    return None


def match(work: Work, row: EventRow, is_broadcast: bool) -> Steps:
    """One transaction inserts all deliveries; ids are minted here, so a second run makes new rows."""
    world, tables = work.world, work.world.tables
    tables.set_event_status(row, "Processing", world.database_us)
    work.between()
    yield 0.01
    if row.is_duplicate:
        world.happened["duplicate by its key"] += 1
        return None
    if work.is_redelivered:
        world.happened["match redelivered"] += 1
    deliveries = _matched(work, row, is_broadcast)
    if not deliveries:
        world.happened["nothing matched"] += 1
        tables.set_event_status(row, "Failure", world.database_us)
        return None
    yield 0.01 * len(deliveries)
    for delivery in deliveries:
        delivery.created_us = world.database_us
        world.happened[f"delivery born {delivery.status}"] += 1
        world.happened["delivery of a later day than its event"] += day_of(row.created_us) < day_of(world.database_us)
    tables.insert_deliveries(deliveries)
    work.tell(
        *(
            DeliveryCreated(
                each.project, each.id, work.time_us(), each.endpoint, each.event_type, row.source, each.status.lower()
            )
            for each in deliveries
        )
    )
    yield 0.01
    for delivery in deliveries:
        # An enqueue that fails is logged and no more; the CLI fetches its deliveries itself.
        if delivery.status == "Scheduled" and delivery.endpoint is not None and world.chance.random() > 0.01:
            world.enqueue(FIRST, delivery.id, partial(deliver, row=delivery, has_snapshot=True))
        work.between()
    tables.set_event_status(row, "Success", world.database_us)
    return None


def _matched(work: Work, row: EventRow, is_broadcast: bool) -> list[DeliveryRow]:
    world = work.world
    chance, project = world.chance, world.tenants.projects[row.project]
    named = list(project.endpoints) if is_broadcast else [e for e in project.endpoints if e.id in row.endpoints]
    found = named or ([] if chance.random() < 0.03 else project.subscribed[row.event_type])
    world.happened["broadcast" if is_broadcast else "fan-out" if named else "by subscriptions"] += 1
    matched = [(endpoint.id, "Scheduled" if endpoint.is_active else "Discarded") for endpoint in found]
    to_cli = [(None, "Scheduled")] if found and chance.random() < 0.03 else []
    world.happened["to the CLI"] += len(to_cli)
    world.happened["event type NULL"] += not row.event_type
    return [
        DeliveryRow(
            work.new_id(), row.project, endpoint, row, row.event_type or None, status,
            "at_most_once" if chance.random() < 0.3 else "at_least_once", chance.randint(2, 4), 0,
        )
        for endpoint, status in (*matched, *to_cli)
    ]  # fmt: skip


def deliver(work: Work, row: DeliveryRow, has_snapshot: bool) -> Steps:
    """EventQueue. The payload's snapshot has neither source nor created_at; a reload here has no source either.

    Every error is swallowed: what is to be tried again goes to RetryEventQueue.
    """
    world = work.world
    yield 0.01
    is_loaded = work.is_redelivered or not has_snapshot
    told = Told(created_us=row.created_us if is_loaded else None)
    if row.is_gone or not _may_be_sent(work, row, told):
        return None
    if row.status == "Success" or (row.status == "Processing" and row.mode == "at_most_once"):
        _stop(work, row, told)
        return None
    if row.status == "Processing":
        world.happened["sent again after a death"] += 1
    if (yield from _limit_or_send(work, row, told)):
        world.enqueue(RETRY, row.id, partial(deliver_again, row=row), world.chance.choice(RETRY_DELAYS))
    return None


def deliver_again(work: Work, row: DeliveryRow) -> Steps:
    """RetryEventQueue: always reloads, with the source of the event's row, and stops at Processing in both modes."""
    world = work.world
    yield 0.01
    if row.is_gone:
        return None
    told = Told(source_of(world, row), row.created_us)
    if row.status in ("Processing", "Success"):
        _stop(work, row, told)
        return None
    if not _may_be_sent(work, row, told):
        return None
    world.happened["retried"] += 1
    again = yield from _limit_or_send(work, row, told)
    return world.chance.choice(RETRY_DELAYS) if again else None


@dataclass(frozen=True, slots=True)
class Told:
    """What a handler knows of a delivery beside its endpoint and event type."""

    source: Label = UNTOLD
    created_us: int | None = None


def source_of(world: World, row: DeliveryRow) -> str | None:
    """As a join finds it: an event whose row is gone has none, which reads as if it had never had one."""
    event = world.tables.event(row.event.id)
    return event.source if event is not None else None


def _stop(work: Work, row: DeliveryRow, told: Told) -> None:
    """There is nothing to do. What was loaded is told, with its updated_at, lest the hook behind it was lost."""
    work.world.happened[f"stopped at {row.status}"] += 1
    work.tell(
        StatusSet(
            row.project, row.id, row.status.lower(), row.updated_us, row.endpoint, row.event_type, told.source,
            told.created_us,
        )
    )  # fmt: skip


def write_status(work: Work, row: DeliveryRow, status: str, told: Told) -> StatusSet:
    """The write, and what its hook tells."""
    world = work.world
    if not row.is_gone:
        world.tables.set_status(row, status, world.database_us)
    world.happened[f"set {status}"] += 1
    return StatusSet(
        row.project, row.id, status.lower(), work.time_us(), row.endpoint, row.event_type, told.source,
        told.created_us,
    )  # fmt: skip


def set_status(work: Work, row: DeliveryRow, status: str, told: Told) -> None:
    """The write and its hook."""
    work.tell(write_status(work, row, status, told))


def _may_be_sent(work: Work, row: DeliveryRow, told: Told) -> bool:
    project = work.world.tenants.projects[row.project]
    if not project.is_deleted:
        return True
    work.world.happened["discarded with its project"] += 1
    set_status(work, row, "Discarded", told)
    return False


def _limit_or_send(work: Work, row: DeliveryRow, told: Told) -> Generator[float, None, bool]:
    """Whether it is to be tried again. A limit changes no status."""
    if work.world.chance.random() < 0.05:
        work.world.happened["rate limited"] += 1
        return True
    yield from _send(work, row, told)
    # Still Processing: an attempt that could not be inserted is an error, and the next run stops at the status.
    return row.status in ("Retry", "Processing")


def _send(work: Work, row: DeliveryRow, told: Told) -> Steps:
    """Processing, the call, its attempt, the outcome; a process may die between any two of them."""
    world, chance = work.world, work.world.chance
    set_status(work, row, "Processing", told)
    yield chance.uniform(0.2, 0.5)
    endpoint = world.tenants.projects[row.project].endpoint(row.endpoint)
    if endpoint is None or not endpoint.is_active:
        world.happened["discarded at its endpoint"] += 1
        set_status(work, row, "Discarded", told)
        return None
    if chance.random() < 0.01:
        world.happened["no credentials"] += 1
        set_status(work, row, "Failure", told)
        return None
    yield chance.uniform(0.2, 3.0)
    succeeded = chance.random() < endpoint.succeeds
    response = chance.choice(("200 OK", "202 Accepted") if succeeded else RESPONSES_OF_FAILURE)
    work.between()
    if chance.random() < 0.01:
        world.happened["attempt not inserted"] += 1
        return None
    attempt = AttemptRow(
        work.new_ulid(), row.project, endpoint.id, row.id, response, succeeded, world.database_us
    )  # fmt: skip
    world.tables.insert_attempt(attempt)
    work.tell(AttemptMade(row.project, attempt.id, work.time_us(), endpoint.id, succeeded, response))
    yield 0.2
    row.trials += 1
    if succeeded:
        outcome = "Success"
    elif row.trials >= row.limit or (row.mode == "at_most_once" and response is not None):
        outcome = "Failure"
    else:
        outcome = "Retry"
    set_status(work, row, outcome, told)
    return None
