"""The whole of it: events are offered, tasks run, people and timers interfere."""

from typing import Final

from tests.ledger.ledgers import DAY_US
from tests.simulation import operators, paths
from tests.simulation.outbox import SECOND_US
from tests.simulation.world import World

NEAR_MIDNIGHT: Final = 0.05
NEAR_THE_END: Final = 0.02


class Simulation(World):
    """A world in which a gateway's life goes its way; see `World` for what can be set and what is counted."""

    def run(self, events: int) -> None:
        """Once: offers so many events over the whole time. Then the tables are in the database, all records told."""
        operators.plan(self, events)
        for _ in range(events):
            self.at(self._moment(), paths.offer)
        self.play()

    def _moment(self) -> int:
        """Any, but rather often about a midnight, and so late that the end finds the event under way."""
        chance, kind = self.chance, self.chance.random()
        midnights = range(self.start_us - self.start_us % DAY_US + DAY_US, self.end_us, DAY_US)
        if kind < NEAR_MIDNIGHT and midnights:
            return chance.choice(midnights) + int(chance.uniform(-1.5, 1) * SECOND_US)
        if kind > 1 - NEAR_THE_END:
            return self.end_us - int(chance.uniform(0, 5) * SECOND_US)
        return self.start_us + int((self.end_us - self.start_us) * chance.random())
