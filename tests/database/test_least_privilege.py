"""The least that the role must be permitted, found by taking each grant away in turn."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from otel_queue.config import Secret
from otel_queue.database.rows import text_of
from otel_queue.errors import ReadError
from tests.database.scene import Scene
from tests.postgres.gateway import Gateway
from tests.seeding.tables import fill


@pytest.fixture
def role(scene: Scene) -> Iterator[Secret]:
    """The role that the grants are for, with none of them yet."""
    scene.gateway.execute("CREATE ROLE otel_queue LOGIN PASSWORD 'secret'")
    yield scene.gateway.dsn_of("otel_queue", "secret")
    scene.gateway.execute("DROP OWNED BY otel_queue; DROP ROLE otel_queue")


def follow(scene: Scene, role: Secret) -> None:
    """All that a follower does, by the role."""
    scene.client().flushall()
    scene.follower = scene.new_follower(role)
    scene.fill()
    scene.look()
    scene.sweep()


def test_the_listed_grants_are_enough(scene: Scene, role: Secret) -> None:
    fill(scene.gateway, 5, days=45)
    scene.gateway.execute(text_of("grants"))
    follow(scene, role)
    scene.assert_equal()


def test_none_of_the_listed_grants_can_be_left_out(scene: Scene, role: Secret) -> None:
    scene.attempt(scene.delivery(scene.event(), "Processing"))
    grants = re.sub(r"--.*", "", text_of("grants"))
    found = re.findall(r"GRANT (.+?)\sON\s+(.+?)\s+TO otel_queue;", grants, re.DOTALL)
    assert len(found) == 6
    for what, on in found:
        columns = re.search(r"\((.+)\)", what)
        for each in columns[1].split(",") if columns else [what]:
            taken = f"SELECT ({each})" if columns else each
            scene.gateway.execute(text_of("grants"))
            scene.gateway.execute(f"REVOKE {taken} ON {on} FROM otel_queue")
            with pytest.raises(ReadError) as caught:
                follow(scene, role)
            assert caught.value.reason == "permission", f"{each} of {on}"


@pytest.mark.parametrize(
    "attempt",
    [
        "SELECT raw FROM convoy.events",
        "SELECT headers FROM convoy.event_deliveries",
        "SELECT response_data FROM convoy.delivery_attempts",
        "UPDATE convoy.event_deliveries SET status = 'Success'",
        "DELETE FROM convoy.events",
    ],
)
def test_the_role_reads_no_payload_and_writes_nothing(scene: Scene, role: Secret, attempt: str) -> None:
    scene.gateway.execute(text_of("grants"))
    with psycopg.connect(role.reveal()) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(attempt.encode())


def test_a_refusal_names_the_grants_of_the_follower(gateway: Gateway, scene: Scene, role: Secret) -> None:
    with pytest.raises(ReadError, match=re.escape("otel_queue/database/grants.sql")):
        follow(scene, role)
