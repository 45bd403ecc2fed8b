"""Whatever happens, in whatever order, and whoever follows: after a sweep the ledger is equal to the rows."""

import random
from typing import Any

import psycopg
import pytest

from tests.database.scene import Scene

STATUSES = ("Scheduled", "Processing", "Retry", "Discarded", "Failure", "Success")
STEPS = 120


class Story:
    """A gateway's life by chance, with looks, sweeps and kills in it."""

    def __init__(self, scene: Scene, number: int) -> None:
        self._scene = scene
        self._chance = random.Random(number)
        self._is_partitioned = scene.gateway.database == "partitioned"
        self._events: list[str] = []
        self._deliveries: list[str] = []
        self._open: list[psycopg.Connection[Any]] = []

    def tell(self) -> None:
        acts = {
            self._event: 4, self._delivery: 8, self._move: 14, self._attempt: 6, self._delete: 2, self._replay: 1,
            self._begin: 2, self._commit: 3, self._look: 8, self._kill: 1, self._sweep_a_slice: 3,
        }  # fmt: skip
        self._event()
        for _ in range(STEPS):
            self._chance.choices(list(acts), list(acts.values()))[0]()
        while self._open:
            self._commit()

    def _event(self) -> None:
        self._events.append(self._scene.event(source=self._chance.choice((None, "S1", "S2"))))

    def _delivery(self) -> None:
        told = {"endpoint": self._chance.choice((None, "E1", "E2")), "event_type": self._chance.choice((None, "t"))}
        event, status = self._chance.choice(self._events), self._chance.choice(STATUSES)
        seconds = self._chance.choice((0, 0, 0, 5000))
        self._deliveries.append(self._scene.delivery(event, status, seconds=seconds, **told))

    def _move(self) -> None:
        """Any status may follow any other: by resend, force resend, batch retry, or by hand."""
        if self._deliveries:
            self._scene.set_status(self._chance.choice(self._deliveries), self._chance.choice(STATUSES))

    def _attempt(self) -> None:
        if self._deliveries:
            self._scene.attempt(self._chance.choice(self._deliveries), succeeded=self._chance.random() < 0.5)

    def _delete(self) -> None:
        if not self._deliveries:
            return
        delivery = self._deliveries.pop(self._chance.randrange(len(self._deliveries)))
        how = self._chance.choice(
            ("DELETE FROM convoy.event_deliveries", "UPDATE convoy.event_deliveries SET deleted_at = now()")
        )
        self._scene.gateway.execute(f"{how} WHERE id = %s", delivery)

    def _replay(self) -> None:
        if self._is_partitioned:
            self._scene.gateway.execute(
                "INSERT INTO convoy.events (id, event_type, project_id, source_id)"
                " SELECT id, 't', 'P', source_id FROM convoy.events WHERE id = %s LIMIT 1",
                self._chance.choice(self._events),
            )

    def _begin(self) -> None:
        """A transaction that inserts an event now and is committed some time later."""
        connection = psycopg.connect(self._scene.gateway.dsn.reveal())
        connection.execute(
            "INSERT INTO convoy.events (id, event_type, project_id, source_id) VALUES (%s, 't', 'P', 'late')",
            (self._scene.new_id(),),
        )
        self._open.append(connection)

    def _commit(self) -> None:
        if self._open:
            connection = self._open.pop(self._chance.randrange(len(self._open)))
            connection.commit()
            connection.close()

    def _look(self) -> None:
        self._scene.look()

    def _kill(self) -> None:
        self._scene.kill()

    def _sweep_a_slice(self) -> None:
        self._scene.place()
        self._scene.follower.sweep_step()


@pytest.mark.parametrize("number", range(5))
def test_after_a_sweep_the_ledger_is_equal_to_the_rows_of_any_story(scene: Scene, number: int) -> None:
    scene.fill()
    Story(scene, number).tell()
    scene.look()
    scene.kill()  # a sweep that began in the middle has seen less
    scene.sweep()
    # The database's own counting has groups of deleted deliveries; for the ledger they are gone.
    scene.gateway.execute("DELETE FROM convoy.event_deliveries WHERE deleted_at IS NOT NULL")
    scene.assert_equal()
    assert scene.sweep() == {}
