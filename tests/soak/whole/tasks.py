"""What a task of the whole run tells: all of it follows from the run's seed and the task's number."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from tests.ledger.ledgers import ulid
from tests.ledger.oracle import Plain

TASK_TYPE: Final = "soak:deliver"
EXACT_PROJECTS: Final = 6
BUFFERED_PROJECTS: Final = 4
ENDPOINTS: Final = 5
EVENT_TYPES: Final = ("paid", "sent")
SOURCES: Final = (None, "source-1", "source-2")
FAN_OUT: Final = (1, 1, 2, 2, 3)
MEAN_OF_TASKS: Final = 2_000
_IDS_OF_A_TASK: Final = 32

Call = tuple[str, dict[str, Any]]
"""A method of the recorder and its arguments, which are the fields of the record that it makes."""


class Lane(NamedTuple):
    """One worker's place: its queue, and how it writes."""

    name: str
    writes: str
    is_long_lived: bool

    @property
    def queue(self) -> str:
        return f"soak-{self.name}"

    @property
    def is_exact(self) -> bool:
        return self.writes == "committed"


# The broker has one mover for each queue.
LANES: Final = (
    Lane("exact", "committed", is_long_lived=True),
    Lane("exact-killed-1", "committed", is_long_lived=False),
    Lane("exact-killed-2", "committed", is_long_lived=False),
    Lane("buffered", "buffered", is_long_lived=True),
    Lane("buffered-killed", "buffered", is_long_lived=False),
)


@dataclass(frozen=True)
class Told:
    """Task `number` of a run: one event with its deliveries, created at `created_us` by the database's clock."""

    seed: int
    number: int
    created_us: int

    @property
    def lane(self) -> Lane:
        return LANES[self.number % len(LANES)]

    @property
    def project(self) -> str:
        turn = self.number // len(LANES)
        return f"exact-{turn % EXACT_PROJECTS}" if self.lane.is_exact else f"buffered-{turn % BUFFERED_PROJECTS}"

    @property
    def source(self) -> str | None:
        return SOURCES[self.number % len(SOURCES)]

    @property
    def event_id(self) -> str:
        return self._id(0)

    @property
    def calls(self) -> list[Call]:
        """In the order in which a worker makes them; a repetition ends the same."""
        chance = random.Random(self.seed << 32 | self.number)
        made: list[Call] = [
            ("event_created", {"project": self.project, "event_id": self.event_id, "source": self.source})
        ]
        used = 1
        for _ in range(chance.choice(FAN_OUT)):
            delivery = list(self._delivery(chance, used))
            used += len(delivery)
            made += delivery
        assert used <= _IDS_OF_A_TASK
        return made

    def _delivery(self, chance: random.Random, used: int) -> Iterator[Call]:
        endpoint = f"endpoint-{chance.randrange(ENDPOINTS)}"
        delivery = {"project": self.project, "delivery_id": self._id(used)}
        yield "delivery_created", {
            **delivery, "endpoint": endpoint, "event_type": chance.choice(EVENT_TYPES), "source": self.source,
            "status": "scheduled", "created_us": self.created_us,
        }  # fmt: skip
        yield "status_set", {**delivery, "status": "processing"}
        if chance.random() < 0.01:
            return  # stranded
        answers = chance.choice(("200 OK", "200 OK", "201 Created", "503 Service Unavailable", None))
        yield self._attempt(endpoint, used + 1, answers)
        if answers is None or answers.startswith("5"):
            yield "status_set", {**delivery, "status": "retry"}
            yield "status_set", {**delivery, "status": "processing"}
            answers = chance.choice(("200 OK", None))
            yield self._attempt(endpoint, used + 2, answers)
        yield "status_set", {**delivery, "status": "failure" if answers is None else "success"}

    def _attempt(self, endpoint: str, used: int, answer: str | None) -> Call:
        return "attempt_made", {
            "project": self.project, "attempt_id": self._id(used), "endpoint": endpoint, "http_status": answer,
            "succeeded": answer is not None and answer.startswith("2"),
        }  # fmt: skip

    def _id(self, used: int) -> str:
        return ulid(self.created_us, self.number * _IDS_OF_A_TASK + used)

    def plain(self) -> Iterator[Plain]:
        """The records as the oracle takes them, as if a clock had told them that is right."""
        for turn, (kind, told) in enumerate(self.calls):
            yield {"kind": kind, "time_us": self.created_us + turn, **told}

    def rows(self) -> tuple[tuple[Any, ...], list[tuple[Any, ...]], list[tuple[Any, ...]]]:
        """What the database has of it in the end: an event, its deliveries, their attempts."""
        deliveries: dict[str, dict[str, Any]] = {}
        attempts: list[tuple[Any, ...]] = []
        delivery = ""
        for kind, told in self.calls:
            if "delivery_id" in told:
                delivery = told["delivery_id"]
                deliveries.setdefault(delivery, {}).update(told)
            elif kind == "attempt_made":
                attempts.append(
                    (told["attempt_id"], self.project, told["endpoint"], delivery, told["http_status"],
                     told["succeeded"])
                )  # fmt: skip
        event = (self.event_id, "paid", self.project, self.source, "Success")
        return (
            event,
            [
                (id, self.event_id, row["status"].capitalize(), row["endpoint"], row["event_type"], self.project,
                 self.created_us)
                for id, row in deliveries.items()
            ],
            attempts,
        )  # fmt: skip


@dataclass(frozen=True)
class Schedule:
    """Which task is due when."""

    seed: int
    begins_us: int
    tasks_per_second: float

    def task(self, number: int) -> Told:
        return Told(self.seed, number, self.begins_us + int(number / self.tasks_per_second * 1_000_000))

    def due(self, now_us: int) -> int:
        """How many tasks are to be there by now."""
        return int((now_us - self.begins_us) / 1_000_000 * self.tasks_per_second)


def mean_records(seed: int) -> float:
    """How many records a task has on average."""
    return sum(len(Told(seed, number, 0).calls) for number in range(MEAN_OF_TASKS)) / MEAN_OF_TASKS
