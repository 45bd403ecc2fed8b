"""A schedule: what happens in one virtual world, step by step, drawn from a seed before anything runs.

Steps do not depend on one another, so any of them may be left out when a failure is made smaller.
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from otel_queue.ledger.contract import Rule

SECOND: Final = 1_000_000
MINUTE: Final = 60 * SECOND
HOUR: Final = 60 * MINUTE
DAY: Final = 24 * HOUR

START_US: Final = 1_795_478_400_000_000  # 2026-11-24
OPERATORS: Final = ("operator-0", "operator-1")
ENDPOINTS: Final = ("alpha", "beta", "gamma", "delta")
EVENT_TYPES: Final = ("paid", "refunded")
SOURCES: Final = ("shop", "till", None)
FINAL_STATUSES: Final = ("success", "failure", "discarded")
REFUSALS: Final = (
    "READONLY You can't write against a read only replica.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "NOREPLICAS Not enough good replicas to write.",
)


@dataclass(frozen=True, slots=True)
class Saying:
    """A record to be made when it is first told: its time is `offset_us` from then, its id `age_us` old.

    `number` names the event, delivery or attempt. `created_offset_us` is told as the creation time, from the id's time.
    """

    kind: str
    project: str
    number: int
    offset_us: int
    age_us: int = 0
    is_undated: bool = False
    status: str = ""
    labels: tuple[tuple[str, str | None], ...] = ()
    created_offset_us: int | None = None
    code: str | None = None
    is_whole_second: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """Something that `actor` does. `fates` are those of its exchanges with Redis ("" for all that goes well).

    `meanwhile` is how many of the steps behind it happen before each of them.
    """

    id: int
    kind: str
    actor: str = ""
    what: tuple[object, ...] = ()
    fates: tuple[str, ...] = ()
    meanwhile: tuple[int, ...] = ()

    def __str__(self) -> str:
        words = [self.kind, self.actor, *map(str, self.what)]
        words += [f"exchanges {'/'.join(each or 'ok' for each in self.fates)}"] if any(self.fates) else []
        words += [f"meanwhile {self.meanwhile}"] if any(self.meanwhile) else []
        return f"{self.id:4} " + " ".join(word for word in words if word)


@dataclass(slots=True)
class Schedule:
    """`writers` are named with their sort, `buffered` or `waiting`; each project is on one of the servers."""

    seed: int
    servers: int
    projects: dict[str, int]
    writers: dict[str, str]
    exporters: tuple[str, ...]
    rule: Rule
    most_records: int
    sayings: list[Saying] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)


class Draw:
    """Draws a schedule; the same for the same seed."""

    def __init__(self, seed: int, positions: int = 60) -> None:
        self.chance = chance = random.Random(f"schedule {seed}")
        servers = chance.choice((1, 1, 3))
        names = [f"project-{number}" for number in range(chance.randint(2, 4))]
        self.plan = Schedule(
            seed=seed,
            servers=servers,
            projects={name: chance.randrange(servers) for name in names},
            writers={
                f"worker-{n}": chance.choice(("buffered", "buffered", "waiting")) for n in range(chance.randint(1, 3))
            },
            exporters=tuple(f"exporter-{n}" for n in range(chance.randint(1, 2))),
            rule=Rule(chance.randint(1, 3), chance.randint(1, 2), chance.choice((2, 4, 1000, 1000))),
            most_records=chance.choice((8, 10_000, 10_000, 10_000)),
        )
        self._positions = positions
        self._told: list[list[int]] = [[] for _ in range(positions)]
        # How rough this world is: a calm one shows what a rough one would hide.
        self._roughness = chance.choice((0.0, 1.0, 1.0, 2.0, 3.0))
        self._jumps = chance.choice((0.0, 0.5, 1.0))
        # Some go from day to day, and change their rules as they go.
        self._days = chance.choice((0.0, 0.0, 0.4))
        self._lies = chance.choice((0.0, 0.04))

    def schedule(self) -> Schedule:
        for number in range(self.chance.randint(15, 45)):
            self._draw_delivery(number)
        for position in range(self._positions):
            self._draw_position(position)
        return self.plan

    def _say(self, position: int, saying: Saying) -> None:
        """Tells it at the position, and sometimes again later."""
        self.plan.sayings.append(saying)
        number = len(self.plan.sayings) - 1
        while position < self._positions:
            self._told[position].append(number)
            if self.chance.random() > 0.15:
                return
            position += self.chance.randint(0, 12)

    def _offset(self) -> int:
        kind = self.chance.random()
        if kind < self._lies:
            return self.chance.randint(6 * SECOND, 3 * DAY)
        if kind < 0.10:
            return self.chance.randint(0, 4_900_000)
        if kind < 0.22:
            return -self.chance.randint(0, 20 * MINUTE)
        if kind < 0.26:
            return -self.chance.randint(0, 3 * DAY)
        return self.chance.randint(-200_000, 50_000)

    def _draw_delivery(self, number: int) -> None:
        chance = self.chance
        project = chance.choice(list(self.plan.projects))
        age = 0 if chance.random() < 0.85 else chance.randint(-2 * SECOND, 4 * DAY)
        is_undated = chance.random() < 0.12
        labels = (
            ("endpoint", chance.choice(ENDPOINTS)),
            ("event_type", chance.choice(EVENT_TYPES)),
            ("source", chance.choice(SOURCES)),
        )
        position = chance.randrange(self._positions)

        def say(kind: str, status: str = "", code: str | None = None, own: int = number) -> None:
            nonlocal position
            if chance.random() < 0.12:
                return  # lost before it was told
            told = tuple(pair for pair in labels if chance.random() < 0.8)
            if chance.random() < 0.05:
                told = (("endpoint", chance.choice(ENDPOINTS)), *told[1:])  # a hook that knows it otherwise
            created = chance.choice((None, chance.randint(-SECOND, SECOND))) if kind == "created" else None
            if kind == "status" and chance.random() < 0.1:
                kind = "row"
            if kind == "row" or (kind == "status" and chance.random() < 0.15):
                created = chance.randint(-SECOND, SECOND)
            saying = Saying(
                kind, project, own, self._offset(), age, is_undated, status, told, created, code, chance.random() < 0.15
            )
            self._say(position, saying)

        if chance.random() < 0.6:
            say("event")
        say("created", chance.choices(("scheduled", "discarded"), (9, 1))[0])
        attempt = 10_000 + 100 * number
        for _ in range(chance.choice((0, 1, 1, 1, 2, 3))):
            position += chance.randint(0, 6)
            say("status", "processing")
            position += chance.randint(0, 3)
            attempt += 1
            say("attempt", code=chance.choice(("200 OK", "503 Service Unavailable", None)), own=attempt)
            say("status", chance.choice(("retry", "retry", *FINAL_STATUSES)))
        if chance.random() < 0.5:
            position += chance.randint(0, 6)
            say("status", chance.choice(FINAL_STATUSES))

    def _step(
        self, kind: str, actor: str = "", *what: object, exchanges: int = 0, is_disturbed: bool | None = None
    ) -> None:
        """`exchanges` is how many of it may go wrong, or have others come in between."""
        chance = self.chance
        fates = ("lost", "unanswered", "cut")
        if is_disturbed is None:
            is_disturbed = chance.random() < 0.25
        self.plan.steps.append(
            Step(
                len(self.plan.steps),
                kind,
                actor,
                what,
                tuple(
                    chance.choice(fates) if chance.random() < 0.03 * self._roughness else "" for _ in range(exchanges)
                ),
                tuple(chance.choice((0, 0, 0, 1, 2, 4)) for _ in range(exchanges)) if is_disturbed else (),
            )
        )

    def _draw_position(self, position: int) -> None:
        chance, plan = self.chance, self.plan
        pause = self._pause()
        self._step("wait", "", pause)
        if pause > DAY and chance.random() < 0.5:
            self._settle_while_records_come(position)
        for number in self._told[position]:
            writer = chance.choice(list(plan.writers))
            self._step("tell", writer, number, exchanges=3 if plan.writers[writer] == "waiting" else 0)
            if chance.random() < 0.6:
                self._step("turn", writer, exchanges=4)
        if chance.random() < 0.5:
            self._step("turn", chance.choice(list(plan.writers)), exchanges=4)
        if chance.random() < 0.3:
            self._step("retry", chance.choice(list(plan.writers)), exchanges=4)
        if chance.random() < 0.4:
            self._step("read", chance.choice(plan.exporters), exchanges=8)
        self._draw_upkeep()
        if chance.random() < 0.12 * self._roughness:
            self._draw_fault()

    def _settle_while_records_come(self, position: int) -> None:
        """Deliveries of days that are over go on while their days are settled."""
        chance, sayings = self.chance, self.plan.sayings
        earlier = [sayings[number] for told in self._told[:position] for number in told]
        known = [saying for saying in earlier if saying.kind in ("created", "status")]
        if not known:
            return
        project, writer = chance.choice(known).project, chance.choice(list(self.plan.writers))
        for saying in [each for each in known if each.project == project][-6:]:
            if chance.random() < 0.5:
                sayings.append(
                    Saying(
                        "status", project, saying.number, self._offset(), saying.age_us, saying.is_undated,
                        chance.choice(("processing", "retry", *FINAL_STATUSES)), saying.labels,
                    )
                )  # fmt: skip
                self._step("tell", writer, len(sayings) - 1)
        self._step("settle", OPERATORS[0], project, exchanges=14, is_disturbed=True)
        self._step("turn", writer, exchanges=4)

    def _pause(self) -> int:
        if self.chance.random() < self._days:
            return self.chance.randint(4 * HOUR, 30 * HOUR)
        kind = self.chance.random()
        if kind < 0.12 * self._jumps:
            return self.chance.randint(HOUR, 4 * DAY)
        if kind < 0.14 * self._jumps:
            return self.chance.randint(4 * DAY, 20 * DAY)
        return self.chance.randint(0, 2 * SECOND if kind < 0.7 else 5 * MINUTE)

    def _draw_upkeep(self) -> None:
        chance, project = self.chance, self.chance.choice(list(self.plan.projects))
        kind = chance.random()
        if kind < 0.15:
            self._step("settle", chance.choice(OPERATORS), project, exchanges=12)
        elif kind < 0.17:
            self._step("expire", OPERATORS[0], project, chance.randint(0, 4), exchanges=3)
        elif kind < 0.19:
            self._step("say expired", chance.choice(list(self.plan.writers)), project, chance.randint(0, 4))
        elif kind < 0.22:
            self._step("describe", chance.choice(list(self.plan.writers)), project, self._offset(), chance.choice("AB"))
        elif kind < 0.25:
            self._step("free", OPERATORS[1], project, exchanges=6, is_disturbed=chance.random() < 0.7)
        elif kind < 0.26 + self._days / 20:
            rule = Rule(chance.randint(1, 4), chance.randint(1, 3), chance.choice((2, 4, 1000)))
            self._step("add rule", OPERATORS[0], rule, exchanges=3)

    def _draw_fault(self) -> None:
        chance, plan, server = self.chance, self.plan, self.chance.randrange(self.plan.servers)
        kind = chance.choice(("dead", "hole", "full", "refusing", "lost tail", "crash", "damaged", "mend", "mend"))
        if kind == "lost tail":
            exporter = chance.choice(plan.exporters)
            self._step("read", exporter, exchanges=8)
            self._step("lose", "", server, chance.choice((1, 2, 4, 8, 16, 16, 30, 1_000_000)))
            self._step("read", exporter, exchanges=8)
        elif kind == "crash":
            self._step("crash", chance.choice(list(self.plan.writers)))
        elif kind == "damaged":
            self._step("damage", "", chance.choice(list(self.plan.projects)))
        elif kind == "refusing":
            self._step("refuse", "", server, chance.choice(REFUSALS))
        else:
            self._step(kind, "", server)


def draw(seed: int) -> Schedule:
    """The schedule of a seed."""
    return Draw(seed).schedule()


def without(schedule: Schedule, left_out: Sequence[Step]) -> Schedule:
    """The schedule without these steps."""
    gone = {step.id for step in left_out}
    return Schedule(
        schedule.seed, schedule.servers, schedule.projects, schedule.writers, schedule.exporters, schedule.rule,
        schedule.most_records, schedule.sayings, [step for step in schedule.steps if step.id not in gone],
    )  # fmt: skip
