"""The gateway's tables full of rows as they come to be, repeatable by a number."""

import random
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tests.ledger.ledgers import DAY_US, now_us, ulid
from tests.postgres.gateway import Gateway

MINUTE_US = 60_000_000
STATUSES = ("Scheduled", "Processing", "Retry", "Discarded", "Failure", "Success")
PROJECTS = ("P", "Q", "R{1}", "no row")

_EVENTS = (
    "INSERT INTO convoy.events (id, event_type, project_id, source_id, status, created_at)"
    " VALUES (%s, 't', %s, %s, 'Success', %s)"
)
_DELIVERIES = (
    "INSERT INTO convoy.event_deliveries"
    " (id, event_id, project_id, endpoint_id, event_type, status, created_at, updated_at, deleted_at)"
    " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
)
_ATTEMPTS = (
    "INSERT INTO convoy.delivery_attempts"
    " (id, project_id, endpoint_id, event_delivery_id, http_status, status, created_at)"
    " VALUES (%s, %s, %s, 'd', %s, %s, %s)"
)


def at(time_us: int) -> datetime:
    """As the driver takes a time."""
    return datetime.fromtimestamp(time_us / 1e6, tz=UTC)


@dataclass
class Tables:
    """What `fill` made: `deliveries` are (id, project, time of creation) of those that are not deleted."""

    deliveries: list[tuple[str, str, int]] = field(default_factory=list)
    events: list[tuple[str, str]] = field(default_factory=list)


def fill(gateway: Gateway, number: int, size: int = 200, *, days: int = 45) -> Tables:
    """`size` deliveries and their events of the last `days`, of several projects: labels that are NULL or blank, ids
    that are no ULIDs, events that are gone, deleted deliveries, rows around midnight; in partitioned tables events that
    were replayed. The times of creation are full minutes, so that ages can be told apart.
    """
    chance = random.Random(number)
    made = Tables()
    is_partitioned = gateway.database == "partitioned"
    gateway.execute(
        "INSERT INTO convoy.projects VALUES ('Q', 'Zweites', 'outgoing', 'O'), ('R{1}', 'R', 'incoming', '-')"
    )
    midnight = now_us() // DAY_US * DAY_US
    rows: dict[str, list[tuple[Any, ...]]] = {_EVENTS: [], _DELIVERIES: [], _ATTEMPTS: []}
    for _ in range(size):
        created = _some_time(chance, midnight, days)
        project, event = chance.choice(PROJECTS), _some_id(chance, created)
        source = chance.choice((None, "", "S1", "S2", "http", "\u00fc\t"))
        if chance.random() < 0.9:  # else its event is gone
            made.events.append((event, project))
            rows[_EVENTS].append((event, project, source, at(created)))
            if is_partitioned and chance.random() < 0.2:
                rows[_EVENTS].append((event, project, source, at(created + chance.randrange(1, 90) * MINUTE_US)))
        labels = (
            project,
            chance.choice((None, "E1", "E2")),
            chance.choice((None, "", "paid")),
            chance.choice(STATUSES),
        )
        for deleted in (False, True) if chance.random() < 0.05 else (False,):
            id_ = _some_id(chance, created)
            # At rest: a row of a moment ago is left to the next run. After midnight some would be of now.
            moved = at(min(created + chance.randrange(10_000) * 1_000_000, now_us() - MINUTE_US))
            # In a partition a row has a time; without one its age in processing is not known to the database.
            told = is_partitioned or labels[-1] == "Processing" or chance.random() < 0.9
            when = at(created) if told else None
            rows[_DELIVERIES].append((id_, event, *labels, when, moved, moved if deleted else None))
            if not deleted:
                made.deliveries.append((id_, project, created))
        if chance.random() < 0.5:
            attempt = ulid(now_us(), chance.getrandbits(80))
            rows[_ATTEMPTS].append(
                (attempt, project, "E1", chance.choice(("200 OK", None)), chance.random() < 0.5, at(now_us()))
            )
    for statement, of in rows.items():
        gateway.execute_many(statement, of)
    return made


def _some_time(chance: random.Random, midnight: int, days: int) -> int:
    day = midnight - chance.randrange(1, days + 1) * DAY_US
    minutes = chance.choice((0, 1, 1439, chance.randrange(1440)))
    return day + minutes * MINUTE_US


def _some_id(chance: random.Random, created: int) -> str:
    """A row's id is made a little before the row, perhaps on the day before."""
    made = created - chance.choice((0, 3_000, 40_000))
    id_ = ulid(made, chance.getrandbits(80))
    return chance.choice((id_, id_, id_, id_, id_.lower(), f"evt-{chance.getrandbits(60):x}", "9" + id_[1:]))
