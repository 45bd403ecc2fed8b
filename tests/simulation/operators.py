"""What people and timers do beside the tasks: resends, replays, names, deletion, retention."""

from collections.abc import Sequence
from functools import partial
from typing import Final, TypeVar

from otel_queue.lifecycle import DayExpired
from tests.ledger.ledgers import DAY_US, day_of
from tests.simulation.outbox import SECOND_US
from tests.simulation.paths import (
    CREATE,
    FIRST,
    Offer,
    Told,
    create_event,
    deliver,
    set_status,
    source_of,
    write_status,
)
from tests.simulation.tables import DeliveryRow, EventRow
from tests.simulation.tenants import ORGANISATION, PROJECTS
from tests.simulation.world import Command, Steps, Work, World

T = TypeVar("T")

HOUR_US: Final = 3_600 * SECOND_US
# Who retries what is stuck looks first whether it is.
STUCK_SECONDS: Final = 60
LOOKS: Final = 50
# What may be resent; what succeeded, only by force.
GIVEN_UP: Final = ("Failure", "Discarded")


def plan(world: World, events: int) -> None:
    """Puts all of it on the agenda; what is done to rows as often as there are many of them."""
    for project in world.tenants.projects.values():
        world.tables.execute(
            "INSERT INTO convoy.projects (id, name, organisation_id) VALUES (%s, %s, %s)"
            " ON CONFLICT (id) DO UPDATE SET name = excluded.name",
            project.id, project.name, ORGANISATION[0],
        )  # fmt: skip
    length = world.end_us - world.start_us
    # When the first processes start, and when the last ones do.
    for part in (0.0, 0.51):
        for id in PROJECTS:
            world.at(world.start_us + int(length * part), partial(describe, id=id))
    for number, part in enumerate((0.3, 0.6, 0.9), start=1):
        world.at(world.start_us + int(length * part), partial(rename, id="Q", name=f"Renamed {number}"))
    for part in (0.2, 0.4, 0.75):
        world.at(world.start_us + int(length * part), partial(switch_endpoints, id="P"))
    world.at(world.start_us + int(length * 0.85), partial(delete_project, id="R"))
    often: Sequence[Command] = (resend, force_resend, replay)
    seldom: Sequence[Command] = (batch_retry, retry_stuck)
    for handlers, times in ((often, max(10, events // 30)), (seldom, 12)):
        for handler in handlers:
            for _ in range(times):
                world.at(world.start_us + int(length * world.chance.uniform(0.05, 1)), handler)
    if world.retention_days is not None:
        first = world.start_us - world.start_us % DAY_US + DAY_US + HOUR_US
        for time_us in range(first, world.end_us, DAY_US):
            for id in PROJECTS:
                world.at(time_us, partial(drop_days, id=id))
            for _ in range(LOOKS):
                world.at(time_us + int(world.chance.uniform(0.1, 20) * HOUR_US), resend_behind_its_event)


def describe(work: Work, id: str) -> None:
    """A process starts, and says what its projects are called."""
    work.tell(work.world.tenants.projects[id].described(work.time_us()))


def rename(work: Work, id: str, name: str) -> None:
    project = work.world.tenants.projects[id]
    project.name = name
    work.world.tables.execute("UPDATE convoy.projects SET name = %s WHERE id = %s", name, id)
    work.world.happened["project renamed"] += 1
    work.tell(project.described(work.time_us()))


def switch_endpoints(work: Work, id: str) -> None:
    """What is under way to an endpoint that is no longer active ends as Discarded."""
    for endpoint in work.world.tenants.projects[id].endpoints[-2:]:
        endpoint.is_active = not endpoint.is_active


def delete_project(work: Work, id: str) -> None:
    """Nothing is told: rows stay and count. What is in flight ends as Discarded."""
    tables = work.world.tables
    work.world.tenants.projects[id].is_deleted = True
    tables.flush()
    tables.execute("UPDATE convoy.projects SET deleted_at = now() WHERE id = %s", id)
    tables.execute("UPDATE convoy.events SET deleted_at = now() WHERE project_id = %s", id)
    work.world.happened["project deleted"] += 1


def resend(work: Work) -> None:
    """Loaded by id with its joins; the status comes first, then the task, which may be refused."""
    row = _any_delivery(work.world, work.world.tables.deliveries, GIVEN_UP)
    if row is not None:
        _resend(work, row)


def resend_behind_its_event(work: Work) -> None:
    """Either, of a delivery that was born behind a midnight, when retention has taken its event already."""
    tables = work.world.tables
    left_alone = [row for row in tables.deliveries if row.event.is_gone and tables.event(row.event.id) is None]
    row = _any_delivery(work.world, left_alone, (*GIVEN_UP, "Success"))
    if row is None:
        return
    work.world.happened["resent behind its event"] += 1
    if row.status == "Success":
        _resend_by_force(work, row)
    else:
        _resend(work, row)


def _resend(work: Work, row: DeliveryRow) -> None:
    work.world.happened["resent"] += 1
    set_status(work, row, "Scheduled", Told(source_of(work.world, row), row.created_us))
    _send_soon(work, row)


def force_resend(work: Work) -> None:
    """A delivery that succeeded begins anew, as old as it is."""
    row = _any_delivery(work.world, work.world.tables.deliveries, ("Success",))
    if row is not None:
        _resend_by_force(work, row)


def _resend_by_force(work: Work, row: DeliveryRow) -> None:
    work.world.happened["resent by force"] += 1
    set_status(work, row, "Scheduled", Told(created_us=row.created_us))
    _send_soon(work, row)


def batch_retry(work: Work) -> None:
    """No status up front; those that succeeded are left alone when their turn comes."""
    work.world.enqueue("BatchRetryQueue", work.new_id(), _retry_batch)


def _retry_batch(work: Work) -> Steps:
    yield 0.1
    for _ in range(10):
        row = _any_delivery(work.world, work.world.tables.deliveries, (*GIVEN_UP, "Success"))
        if row is not None:
            work.world.happened[f"batch retry of {row.status}"] += 1
            _send_soon(work, row)
        work.between()
    return None


def retry_stuck(work: Work) -> None:
    """One statement for a page of rows that are stuck in Processing, its hook once per row, then the tasks."""
    world = work.world
    before = world.database_us - STUCK_SECONDS * SECOND_US
    stuck = [
        row for row in world.tables.deliveries
        if row.status == "Processing" and row.updated_us < before and _is_within_reach(world, row)
    ][:20]  # fmt: skip
    records = [write_status(work, row, "Scheduled", Told(created_us=row.created_us)) for row in stuck]
    world.happened["stuck set to Scheduled"] += len(stuck)
    work.tell(*records)
    for row in stuck:
        _send_soon(work, row)


def replay(work: Work) -> None:
    """The stored event under its own id."""
    world = work.world
    rows = [row for row in _sample(world, list(world.tables.events.values())) if _may_be_replayed(world, row[0])]
    if rows:
        row = rows[0][0]
        world.happened["replayed"] += 1
        again = Offer(row.id, row.project, row.event_type, row.source, row.key, row.endpoints)
        world.enqueue(CREATE, f"replay:{row.project}:{row.id}", partial(create_event, offered=again))


def drop_days(work: Work, id: str) -> None:
    """The nightly run: whole days of a project go, and then their end is told."""
    world = work.world
    assert world.retention_days is not None
    last = day_of(world.now_us - (world.retention_days + 1) * DAY_US)
    world.happened["rows dropped"] += world.tables.drop_days(id, last)
    work.tell(DayExpired(id, last))


def _send_soon(work: Work, row: DeliveryRow) -> None:
    work.world.enqueue(FIRST, row.id, partial(deliver, row=row, has_snapshot=False), delay_seconds=1.0)


def _any_delivery(world: World, rows: Sequence[DeliveryRow], statuses: Sequence[str]) -> DeliveryRow | None:
    found = _sample(world, rows)
    return next(
        (row for row in found if row.status in statuses and _is_within_reach(world, row) and _is_active(world, row)),
        None,
    )


def _sample(world: World, rows: Sequence[T]) -> list[T]:
    return world.chance.sample(rows, min(LOOKS, len(rows)))


def _is_within_reach(world: World, row: DeliveryRow | EventRow) -> bool:
    return not row.is_gone and not world.tenants.projects[row.project].is_deleted


def _is_active(world: World, row: DeliveryRow) -> bool:
    endpoint = world.tenants.projects[row.project].endpoint(row.endpoint)
    return endpoint is not None and endpoint.is_active


def _may_be_replayed(world: World, row: EventRow) -> bool:
    return row.status == "Success" and _is_within_reach(world, row)
