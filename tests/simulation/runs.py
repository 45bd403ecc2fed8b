"""A simulation that has run, and the ledger that its records fill."""

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from otel_queue.lifecycle import Record
from tests.ledger.ledgers import DAY_US, Ledger
from tests.postgres.gateway import Gateway
from tests.servers.redis import RedisServer
from tests.simulation.comparison import Compared, Thing, compare, thing, things_in_database, things_in_ledger
from tests.simulation.simulation import Simulation

# Whole days before today, and so much into the next one: the same moments of a day whenever a test runs.
DAYS, INTO_THE_LAST_US = 4, DAY_US // 12
SKEW_US = 2_000_000
AT_ONCE = 5_000


@dataclass
class Run:
    simulation: Simulation
    records: list[Record]

    def fill(self, ledger: Ledger) -> None:
        for first in range(0, len(self.records), AT_ONCE):
            ledger.write(*self.records[first : first + AT_ONCE])

    def was_lost(self, things: set[Thing]) -> bool:
        """Whether each of these is something of which a record was lost."""
        lost = {thing("", "", id).stored for id in self.simulation.lost}
        return {each.stored for each in things} <= lost

    def is_closed(self, each: Thing) -> bool:
        """Its id is of a day that retention took, whatever the day of its row."""
        return each.day <= self.simulation.tables.dropped_through.get(each.project, "")

    def gone(self) -> set[Thing]:
        tables = self.simulation.tables
        events = {thing("event", row.project, row.id) for rows in tables.events.values() for row in rows if row.is_gone}
        deliveries = {thing("delivery", row.project, row.id) for row in tables.deliveries if row.is_gone}
        return events | deliveries | {thing("attempt", row.project, row.id) for row in tables.attempts if row.is_gone}


@contextlib.contextmanager
def simulated(gateway: Gateway, events: int, *, seed: int = 1, days: int = DAYS, **options: Any) -> Iterator[Run]:
    midnight_us = int(time.time()) // 86_400 * DAY_US
    end_us = midnight_us - DAY_US + INTO_THE_LAST_US
    records: list[Record] = []
    start_us = midnight_us - (days + 1) * DAY_US
    new = Simulation(gateway, records.append, seed=seed, start_us=start_us, end_us=end_us, **options)
    with contextlib.closing(new) as simulation:
        simulation.run(events)
        yield Run(simulation, records)


def compared(gateway: Gateway, redis_server: RedisServer) -> Compared:
    with redis_server.client() as client:
        return compare(things_in_ledger(client), things_in_database(gateway))
