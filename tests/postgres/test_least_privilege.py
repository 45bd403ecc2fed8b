"""The least that the role must be permitted, found by taking each grant away in turn."""

import re
from collections.abc import Iterator

import psycopg
import pytest

from otel_queue.config.secret import Secret
from otel_queue.errors import ReadError
from otel_queue.postgres.aggregations import Found, Reckoning, read_families
from otel_queue.postgres.database import Database, statement
from otel_queue.postgres.dsn import Dsn
from tests.postgres.gateway import Gateway

GRANTS: dict[Reckoning, str] = {"legacy": "grants", "corrected": "grants", "snapshot": "snapshot/grants"}


@pytest.fixture
def role(own_gateway: Gateway) -> Iterator[Secret]:
    """The role that the grants are for, with none of them yet."""
    own_gateway.event("e1")
    own_gateway.delivery("d1", "e1", "Processing")
    own_gateway.attempt("200 OK", True)
    own_gateway.refresh_snapshots()
    own_gateway.execute("CREATE ROLE otel_queue LOGIN PASSWORD 'secret'")
    yield own_gateway.dsn_of("otel_queue", "secret")
    own_gateway.execute("DROP OWNED BY otel_queue; DROP ROLE otel_queue")


def read(dsn: Secret, reckoning: Reckoning) -> Found:
    with Database(Dsn(dsn), statement_timeout_seconds=30).reading() as reading:
        return read_families(reading, reckoning, 0.0, lambda: None)


def single_grants(name: str) -> list[tuple[str, str]]:
    """Each column and each table that a file of grants names, and the words that take it away."""
    text = re.sub(r"--.*", "", statement(name))
    found: list[tuple[str, str]] = []
    for what, on in re.findall(r"GRANT (.+?)\sON\s+(.+?)\s+TO otel_queue;", text, re.DOTALL):
        columns = re.search(r"\((.+)\)", what)
        for each in columns[1].split(",") if columns else on.split(","):
            each = each.strip()
            taken = f"SELECT ({each}) ON {on}" if columns else f"{what} ON {each}"
            found.append((f"{on} {each}" if columns else each, f"REVOKE {taken} FROM otel_queue"))
    assert len(found) >= 5, found
    return found


@pytest.mark.parametrize("reckoning", list(GRANTS))
def test_the_listed_grants_are_enough(own_gateway: Gateway, role: Secret, reckoning: Reckoning) -> None:
    own_gateway.execute(statement(GRANTS[reckoning]))
    found = read(role, reckoning)
    assert not found.failures
    assert all(family.samples for family in found.families)
    assert len(found.families) == (5 if reckoning == "corrected" else 4)


@pytest.mark.parametrize("grants", sorted(set(GRANTS.values())))
def test_none_of_the_listed_grants_can_be_left_out(own_gateway: Gateway, role: Secret, grants: str) -> None:
    reckonings = [reckoning for reckoning, name in GRANTS.items() if name == grants]
    for what, revoke in single_grants(grants):
        own_gateway.execute(statement(grants))
        own_gateway.execute(revoke)
        assert any(_is_refused(role, reckoning) for reckoning in reckonings), f"{what} need not be granted"


def _is_refused(role: Secret, reckoning: Reckoning) -> bool:
    try:
        return "permission" in read(role, reckoning).failures
    except ReadError as error:
        return error.reason == "permission"


@pytest.mark.parametrize(
    "attempt",
    [
        "SELECT raw FROM convoy.events",
        "SELECT data FROM convoy.events",
        "SELECT headers FROM convoy.event_deliveries",
        "SELECT response_data FROM convoy.delivery_attempts",
        "UPDATE convoy.event_deliveries SET status = 'Success'",
        "DELETE FROM convoy.events",
    ],
)
def test_the_role_reads_no_payload_and_writes_nothing(own_gateway: Gateway, role: Secret, attempt: str) -> None:
    own_gateway.execute(statement("grants"))
    with psycopg.connect(role.reveal()) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
        connection.execute(attempt.encode())


def test_the_grants_reach_partitions(partitioned_gateway: Gateway) -> None:
    partitioned_gateway.event("e1")
    partitioned_gateway.delivery("d1", "e1", "Success")
    partitioned_gateway.execute("CREATE ROLE otel_queue LOGIN PASSWORD 'secret'")
    try:
        partitioned_gateway.execute(statement("grants"))
        found = read(partitioned_gateway.dsn_of("otel_queue", "secret"), "corrected")
        assert not found.failures
    finally:
        partitioned_gateway.execute("DROP OWNED BY otel_queue; DROP ROLE otel_queue")
