"""Which attempts count: those made since the ledger's birth, by their row's time or their id's."""

import pytest

from otel_queue.postgres.rows import AttemptRow
from otel_queue.seeding.attempts import by_birth, made_at
from tests.ledger.ledgers import ulid

BIRTH_US = 1_800_000_000_000_000


def attempt(id_: str, created_us: int | None) -> AttemptRow:
    return AttemptRow(id_, "P", "E1", True, "200 OK", created_us)


@pytest.mark.parametrize("id_", [ulid(BIRTH_US + 60_000_000, 1), ulid(BIRTH_US - 60_000_000, 1), "att-1"])
def test_the_rows_time_decides_where_it_has_one_to_the_microsecond(id_: str) -> None:
    before, at = attempt(id_, BIRTH_US - 1), attempt(id_, BIRTH_US)
    assert by_birth([before, at], BIRTH_US) == ([at], 1, [])


def test_without_it_the_ids_time_does_and_without_either_nobody_can_say() -> None:
    rows = [attempt(ulid(BIRTH_US - 1_000, 1), None), attempt(ulid(BIRTH_US, 1), None), attempt("att-1", None)]
    assert by_birth(rows, BIRTH_US) == ([rows[1]], 1, [rows[2]])


def test_a_row_of_an_older_system_was_made_when_it_says_and_not_when_its_id_does() -> None:
    assert made_at(attempt(ulid(BIRTH_US, 1), 0)) == 0
