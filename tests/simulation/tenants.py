"""Whom the gateway works for: projects, their endpoints and sources."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from otel_queue.lifecycle import ProjectDescribed

ORGANISATION: Final = ("O", "Org")
# P is the project whose days have partitions of their own.
PROJECTS: Final = ("P", "Q", "R")
SOURCES: Final = ("S1", "S2")
EVENT_TYPES: Final = ("paid", "sent", "")


@dataclass(slots=True)
class Endpoint:
    id: str
    succeeds: float
    is_active: bool = True


@dataclass(slots=True)
class Project:
    id: str
    name: str
    endpoints: Sequence[Endpoint] = ()
    is_deleted: bool = False
    keys: list[str] = field(default_factory=list)
    subscribed: dict[str, list[Endpoint]] = field(default_factory=dict)

    def endpoint(self, id: str | None) -> Endpoint | None:
        return next((endpoint for endpoint in self.endpoints if endpoint.id == id), None)

    def described(self, time_us: int) -> ProjectDescribed:
        return ProjectDescribed(self.id, time_us, self.name, *ORGANISATION)


class Tenants:
    """Each project has endpoints that are good, bad, and paused, and subscriptions of some of them per event type."""

    def __init__(self, chance: random.Random) -> None:
        self.projects = {id: Project(id, f"Project {id}") for id in PROJECTS}
        for project in self.projects.values():
            project.endpoints = [
                Endpoint(f"{project.id}-E{number}", succeeds, is_active=number != 4)
                for number, succeeds in enumerate((0.98, 0.9, 0.6, 0.2, 0.9), start=1)
            ]
            for event_type in EVENT_TYPES:
                project.subscribed[event_type] = chance.sample(list(project.endpoints), 2)
