"""A clock that a test moves."""

from dataclasses import dataclass


@dataclass
class Clock:
    now: float

    def __call__(self) -> float:
        return self.now
