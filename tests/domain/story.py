"""A gateway's life in small steps, written to its database and recorded in a ledger at the same time."""

import random
import time
from collections.abc import Sequence

from otel_queue.lifecycle import AttemptMade, DeliveryCreated, EventCreated, ProjectDescribed, Record, StatusSet
from tests.ledger.ledgers import Ledger, ulid
from tests.postgres.gateway import Gateway

PROJECTS = ("P", "Q")
SOURCES = (None, "S1", "S2")
ENDPOINTS = ("E1", "E2", "E3")
TYPES = ("invoice.paid", "t")
# Older than anything that a threshold of some minutes looks at, so that an answer does not hang on a second.
OLD_SECONDS = (30, 400, 4000)
STATUSES = ("Processing", "Processing", "Processing", "Success", "Success", "Retry", "Failure", "Discarded")


class Story:
    """Each step creates some events with deliveries and moves some deliveries on; nothing is lost."""

    def __init__(self, gateway: Gateway, ledger: Ledger, seed: int) -> None:
        self.gateway, self.ledger = gateway, ledger
        self._random = random.Random(seed)
        self._numbers = iter(range(1, 1 << 40))
        self._open: list[tuple[str, str, str]] = []
        now = time.time_ns() // 1000
        gateway.execute("INSERT INTO convoy.projects VALUES ('Q', 'Other', 'outgoing', 'O')")
        ledger.write(
            ProjectDescribed("P", now, "Proj", "O", "Org"),
            ProjectDescribed("Q", now, "Other", "O", "Org"),
        )
        self._give_up(now)

    def step(self) -> None:
        records: list[Record] = []
        for _ in range(self._random.randrange(4)):
            records += self._create()
        for _ in range(min(len(self._open), self._random.randrange(4))):
            records += self._move(self._open.pop(self._random.randrange(len(self._open))))
        self.ledger.write(*records)

    def _give_up(self, now: int) -> None:
        """A group in which nothing ever succeeded."""
        event, delivery = ulid(now, next(self._numbers)), ulid(now, next(self._numbers))
        self.gateway.event(event, source="S9")
        self.gateway.delivery(delivery, event, "Failure", endpoint="E9")
        self.ledger.write(
            EventCreated("P", event, now, "S9"), DeliveryCreated("P", delivery, now, "E9", "t", "S9", status="failure")
        )

    def _create(self) -> list[Record]:
        project, source = self._random.choice(PROJECTS), self._random.choice(SOURCES)
        seconds = self._random.choice(OLD_SECONDS)
        now = time.time_ns() // 1000
        created = now - seconds * 1_000_000
        event = ulid(created, next(self._numbers))
        self.gateway.event(event, source=source, project=project)
        records: list[Record] = [EventCreated(project, event, now, source)]
        for endpoint in self._random.sample(ENDPOINTS, self._random.randrange(3)):
            delivery, event_type = ulid(created, next(self._numbers)), self._random.choice(TYPES)
            self.gateway.delivery(
                delivery, event, "Scheduled", endpoint=endpoint, seconds=seconds, event_type=event_type, project=project
            )
            records.append(DeliveryCreated(project, delivery, now, endpoint, event_type, source, created_us=created))
            self._open.append((project, delivery, endpoint))
        return records

    def _move(self, delivery: tuple[str, str, str]) -> Sequence[Record]:
        project, id_, endpoint = delivery
        status = self._random.choice(STATUSES)
        now = time.time_ns() // 1000
        self.gateway.execute("UPDATE convoy.event_deliveries SET status = %s WHERE id = %s", status, id_)
        records: list[Record] = [StatusSet(project, id_, status, now)]
        if status in ("Success", "Retry", "Failure"):
            http_status = "200 OK" if status == "Success" else self._random.choice(("503 Service Unavailable", None))
            attempt = ulid(now, next(self._numbers))
            self.gateway.execute(
                "INSERT INTO convoy.delivery_attempts"
                " (id, project_id, endpoint_id, event_delivery_id, http_status, status)"
                " VALUES (%s, %s, %s, %s, %s, %s)",
                attempt, project, endpoint, id_, http_status, status == "Success",
            )  # fmt: skip
            records.append(AttemptMade(project, attempt, now, endpoint, status == "Success", http_status))
        if status in ("Processing", "Retry"):
            self._open.append(delivery)
        return records
