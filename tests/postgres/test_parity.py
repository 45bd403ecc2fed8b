"""Every situation in which somebody once looked, and what each reckoning says of it.

A row: what the tables hold, and then the four families. `e1 S1` is an event with its source, `-` for none;
`d1 e1 E1 Processing 60` is a delivery of it, created 60 s ago; further words are `type=-` (no event type),
`deleted` (the delivery's deleted_at is set), `project=X`. A second line says what is corrected, `=` where nothing is.
Labels are in short: see `brief`. Ages may have grown by what the test took.
"""

import re
from typing import Any, NamedTuple

import pytest

from otel_queue.errors import ReadError
from otel_queue.postgres.aggregations import Reckoning
from otel_queue.samples import Family
from tests.postgres.gateway import (
    DELIVERIES,
    DELIVERY_BACKLOG,
    EVENT_BACKLOG,
    EVENTS,
    Gateway,
    brief,
    by_name,
    samples,
)

MOST_GROWN_SECONDS = 20.0

# Q = events, B = their backlog, D = deliveries, E = their backlog.
TABLE = """
row | tables                                        | Q         | B          | D                           | E
1a  | e1 -                                          | http=1    | -          | -                           | -
1b  | e1 -; d1 e1 E1 Scheduled                      | http=1    | -          | E1,scheduled,http=1         | -
    |                                               | =         | http=0     | =                           | E1,http=0
1c  | e1 -; d1 e1 E1 Processing 50                  | http=1    | http=50    | E1,processing,http=1        | E1,http=50
1d  | e1 -; d1 e1 E1 Success 50                     | http=1    | http=0     | E1,success,http=1           | E1,http=0
2a  | e1 S1; d1 e1 E1 Processing 60                 | S1=1      | S1=60      | E1,processing,S1=1          | E1,S1=60
2b  | e1 S1; d1 e1 E1 Retry 60                      | S1=1      | -          | E1,retry,S1=1               | -
    |                                               | =         | S1=0       | =                           | E1,S1=0
2c  | e1 S1; d1 e1 E1 Failure 60                    | S1=1      | -          | E1,failure,S1=1             | -
    |                                               | =         | S1=0       | =                           | E1,S1=0
3   | e1 -; d1 e1 E1 Success; d2 e1 E2 Processing 30; d3 e1 E3 Discarded | http=1 | http=30 | E1,success,http=1 E2,processing,http=1 E3,discarded,http=1 | E1,http=0 E2,http=30
    |                                               | =         | =          | =                           | E1,http=0 E2,http=30 E3,http=0
4   | e1 -; e2 -                                    | http=2    | -          | -                           | -
5a  | e1 -; d1 e1 E1 Success 3600                   | http=1    | http=0     | E1,success,http=1           | E1,http=0
5b  | e1 -; d1 e1 E1 Scheduled 3600                 | http=1    | -          | E1,scheduled,http=1         | -
    |                                               | =         | http=0     | =                           | E1,http=0
5c  | e1 -; d1 e1 E1 Processing 3600                | http=1    | http=3600  | E1,processing,http=1        | E1,http=3600
5d  | e1 -; d1 e1 E1 Failure 3600                   | http=1    | -          | E1,failure,http=1           | -
    |                                               | =         | http=0     | =                           | E1,http=0
6a  | e1 -; d1 e1 E1 Processing 100; renamed; project deleted | http=1 | http=100 | E1,processing,http,name:New=1 | E1,http=100
6b  | e1 -; d1 e1 E1 Processing 100 deleted         | http=1    | http=100   | -                           | E1,http=100
7   | d1 e1 E1 Success                              | -         | http=0     | E1,success,http=1           | E1,http=0
    |                                               | =         | unknown=0  | E1,success,unknown=1        | E1,unknown=0
9   | e1 -; d1 e1 - Scheduled; d2 e1 E1 Success type=- | http=1 | http=0     | ,scheduled,http=1 E1,success,http,type:=1 | E1,http=0
    |                                               | =         | =          | =                           | ,http=0 E1,http=0
10  | e1 S1; e2 S2; d1 e1 E1 Success; d2 e1 E1 Processing 20; d3 e1 E1 Processing 90; d4 e2 E1 Success; d5 e2 E2 Retry 500 | S1=1 S2=1 | S1=90 S2=0 | E1,success,S1=1 E1,processing,S1=2 E1,success,S2=1 E2,retry,S2=1 | E1,S1=90 E1,S2=0
    |                                               | =         | =          | =                           | E1,S1=90 E1,S2=0 E2,S2=0
12  | e1 -; d1 e1 E1 Processing 90000               | http=1    | http=90000 | E1,processing,http=1        | E1,http=90000
13  | e1 - project=X; d1 e1 E1 Success project=X    | X/http=1  | X/http=0   | X/E1,success,http,name:,org:,org_name:=1 | X/E1,http=0
14  | e1 http; e2 -                                 | http=1    | -          | -                           | -
    |                                               | http=2    | =          | =                           | =
15  | e1 http; d1 e1 E1 Success; e2 -; d2 e2 E1 Success | http=1 | http=0    | E1,success,http=1           | E1,http=0
    |                                               | http=2    | =          | E1,success,http=2           | =
"""  # noqa: E501

# Only where ids are not unique: an event that was replayed, then with a second delivery of it.
PARTITIONED_TABLE = """
8a  | e1 S1; d1 e1 E1 Success; replayed e1          | S1=2      | S1=0       | E1,success,S1=2             | E1,S1=0
    |                                               | S1=1      | =          | E1,success,S1=1             | =
8b  | e1 S1; d1 e1 E1 Success; replayed e1; d2 e1 E1 Scheduled | S1=2 | S1=0 | E1,success,S1=2 E1,scheduled,S1=2 | E1,S1=0
    |                                               | S1=1      | =          | E1,success,S1=1 E1,scheduled,S1=1 | =
"""  # noqa: E501


class Situation(NamedTuple):
    row: str
    tables: str
    legacy: list[str]
    corrected: list[str]


def situations(table: str) -> list[Any]:
    found: list[Situation] = []
    for line in table.strip().splitlines():
        row, tables, *cells = (cell.strip() for cell in line.split("|"))
        if row == "row":
            continue
        if row:
            found.append(Situation(row, tables, cells, cells))
        else:
            last = found[-1]
            corrected = [old if cell == "=" else cell for old, cell in zip(last.legacy, cells, strict=True)]
            found[-1] = last._replace(corrected=corrected)
    return [pytest.param(situation, id=situation.row) for situation in found]


def fill(gateway: Gateway, tables: str) -> None:
    for words in tables.split("; "):
        if words == "renamed":
            gateway.execute("UPDATE convoy.projects SET name = 'New' WHERE id = 'P'")
        elif words == "project deleted":
            gateway.execute(
                "UPDATE convoy.projects SET deleted_at = now(); UPDATE convoy.events SET deleted_at = now()"
            )
        elif words.startswith("replayed "):
            gateway.execute(
                "INSERT INTO convoy.events (id, event_type, project_id, source_id, status, created_at)"
                " SELECT id, event_type, project_id, source_id, 'Pending', now() FROM convoy.events WHERE id = %s",
                words.removeprefix("replayed "),
            )
        else:
            _insert(gateway, words.split())


def _insert(gateway: Gateway, words: list[str]) -> None:
    options: dict[str, Any] = {}
    if "deleted" in words:
        words.remove("deleted")
        options["deleted"] = True
    if "type=-" in words:
        words.remove("type=-")
        options["event_type"] = None
    if "project=X" in words:
        words.remove("project=X")
        options["project"] = "X"
    if words[0].startswith("e"):
        gateway.event(words[0], source=None if words[1] == "-" else words[1], **options)
    else:
        id_, event, endpoint, status, *seconds = words
        created = float(seconds[0]) if seconds else 0.0
        gateway.delivery(id_, event, status, endpoint=None if endpoint == "-" else endpoint, seconds=created, **options)


def assert_says(families: dict[str, Family], cells: list[str]) -> None:
    for name, cell in zip((EVENTS, EVENT_BACKLOG, DELIVERIES, DELIVERY_BACKLOG), cells, strict=True):
        expected = {labels: float(value) for labels, value in re.findall(r"(\S*)=(\d+)(?:\s|$)", cell)}
        assert expected or cell == "-", cell
        found = brief(families, name)
        assert found.keys() == expected.keys(), name
        for labels, value in expected.items():
            grown = MOST_GROWN_SECONDS if name.endswith("_seconds") and value else 0.0
            assert value <= found[labels] <= value + grown, (name, labels)


@pytest.mark.parametrize("situation", situations(TABLE))
def test_each_reckoning_says_of_a_situation_what_the_table_says(any_gateway: Gateway, situation: Situation) -> None:
    fill(any_gateway, situation.tables)
    any_gateway.refresh_snapshots()
    assert_says(any_gateway.families("legacy"), situation.legacy)
    assert_says(any_gateway.families("snapshot"), situation.legacy)
    assert_says(any_gateway.families("corrected"), situation.corrected)


@pytest.mark.parametrize("situation", situations(PARTITIONED_TABLE))
def test_a_replay_into_a_partitioned_table_counts_once_when_corrected(
    partitioned_gateway: Gateway, situation: Situation
) -> None:
    fill(partitioned_gateway, situation.tables)
    assert_says(partitioned_gateway.families("legacy"), situation.legacy)
    assert_says(partitioned_gateway.families("corrected"), situation.corrected)


def test_a_redelivered_delivery_with_two_attempts_is_one_delivery_and_two_attempts(any_gateway: Gateway) -> None:
    fill(any_gateway, "e1 -; d1 e1 E1 Success")
    any_gateway.attempt("200 OK", True)
    any_gateway.attempt("200 OK", True)
    for reckoning in ("legacy", "corrected"):
        assert_says(any_gateway.families(reckoning), ["http=1", "http=0", "E1,success,http=1", "E1,http=0"])
    assert brief(any_gateway.families("corrected"), "convoy_event_delivery_attempts_total") == {"E1,success,200": 2.0}


def test_attempts_are_counted_by_outcome_and_three_digits(gateway: Gateway) -> None:
    outcomes: list[tuple[str | None, bool | None]] = [
        ("200 OK", True), ("200", True), ("201 Created", True), ("503 Service Unavailable", False),
        (None, False), ("nonsense", False), (None, None),
    ]  # fmt: skip
    for http_status, succeeded in outcomes:
        gateway.attempt(http_status, succeeded)
    assert brief(gateway.families("corrected"), "convoy_event_delivery_attempts_total") == {
        "E1,success,200": 2.0,
        "E1,success,201": 1.0,
        "E1,failure,503": 1.0,
        "E1,failure,none": 3.0,
    }


def test_the_legacy_numbers_have_no_attempts(gateway: Gateway) -> None:
    gateway.attempt("200 OK", True)
    assert "convoy_event_delivery_attempts_total" not in gateway.families("legacy")


def test_two_sources_with_one_label_and_unequal_counts_are_one_series(gateway: Gateway) -> None:
    fill(gateway, "e1 http; e2 -; e3 -")
    assert brief(gateway.families("legacy"), EVENTS) == {"http": 2.0}
    assert brief(gateway.families("corrected"), EVENTS) == {"http": 3.0}


def test_a_blank_source_is_no_source_when_corrected(gateway: Gateway) -> None:
    fill(gateway, "e1 -; d1 e1 E1 Success")
    gateway.event("e2", source="")
    gateway.delivery("d2", "e2", "Success")
    assert_says(gateway.families("corrected"), ["http=2", "http=0", "E1,success,http=2", "E1,http=0"])


def test_more_than_a_thousand_groups_are_cut_by_the_legacy_numbers_alone(gateway: Gateway) -> None:
    """The youngest are cut by age and come back as 0; the oldest are cut by name."""
    gateway.execute(
        "INSERT INTO convoy.event_deliveries (id, event_id, project_id, endpoint_id, status, created_at)"
        " SELECT status || i, 'e', to_char(i, '0000'), 'E1', status, now() - make_interval(secs => i)"
        " FROM generate_series(1, 1500) i, unnest(ARRAY['Processing', 'Success']) status"
    )
    for name in (EVENT_BACKLOG, DELIVERY_BACKLOG):
        legacy, corrected = (samples(gateway.families(kind), name) for kind in ("legacy", "corrected"))
        assert len(legacy) == 1000
        assert sum(age == 0 for age in legacy.values()) == 500
        assert 1000 <= max(legacy.values()) <= 1000 + MOST_GROWN_SECONDS
        assert len(corrected) == 1500
        assert min(corrected.values()) > 0
        assert 1500 <= max(corrected.values()) <= 1500 + MOST_GROWN_SECONDS


def test_an_age_in_the_future_is_zero_when_corrected_and_negative_in_the_legacy_numbers(gateway: Gateway) -> None:
    fill(gateway, "e1 -; d1 e1 E1 Processing -3600")
    assert brief(gateway.families("corrected"), EVENT_BACKLOG) == {"http": 0.0}
    assert brief(gateway.families("legacy"), EVENT_BACKLOG)["http"] < -3000


@pytest.mark.parametrize("reckoning", ["legacy", "corrected"])
def test_an_age_that_nobody_knows_has_no_sample_and_is_counted(gateway: Gateway, reckoning: Reckoning) -> None:
    fill(gateway, "e1 S1; d1 e1 E1 Success; e2 S2")
    gateway.delivery("d2", "e2", "Processing", seconds=None)
    found = gateway.read(reckoning)
    families = by_name(found.families)
    assert brief(families, EVENT_BACKLOG) == {"S1": 0.0}
    assert brief(families, DELIVERY_BACKLOG) == {"E1,S1": 0.0}
    assert brief(families, DELIVERIES) == {"E1,success,S1": 1.0, "E1,processing,S2": 1.0}
    assert found.failures == {"unknown_age": 2}


def test_labels_that_become_the_same_by_cleaning_add_up(gateway: Gateway) -> None:
    for number, kind in enumerate(["t\n", "t\x01", "t\x7f"]):
        gateway.delivery(f"d{number}", "e", "Success", event_type=kind)
    gateway.delivery("long1", "e", "Success", event_type="x" * 300)
    gateway.delivery("long2", "e", "Success", event_type="x" * 299)
    found = samples(gateway.families("corrected"), DELIVERIES)
    assert {values[4]: count for values, count in found.items()} == {"t?": 3.0, "x" * 256: 2.0}


def test_snapshot_tables_that_were_never_refreshed_are_unknown_not_empty(gateway: Gateway) -> None:
    fill(gateway, "e1 -")
    with pytest.raises(ReadError) as raised:
        gateway.read("snapshot")
    assert raised.value.reason == "not_refreshed"


def test_a_snapshot_is_as_old_as_the_gateways_refresh_of_it(gateway: Gateway) -> None:
    fill(gateway, "e1 -")
    gateway.refresh_snapshots(seconds_ago=500)
    gateway.execute(
        "UPDATE convoy.metrics_snapshot_meta SET refreshed_at = now() - interval '90 s' WHERE name = 'event_queue'"
    )
    ages = {name: 1_000_000 - family.time for name, family in gateway.families("snapshot").items()}
    assert 90 <= ages.pop(EVENTS) <= 90 + MOST_GROWN_SECONDS
    assert all(500 <= age <= 500 + MOST_GROWN_SECONDS for age in ages.values()), ages
    assert len(ages) == 3


def test_a_snapshot_generation_other_than_the_current_one_is_not_read(gateway: Gateway) -> None:
    gateway.execute("INSERT INTO convoy.metrics_event_queue VALUES (7, 'P', 'old', 5), (1, 'P', 'next', 6)")
    fill(gateway, "e1 S1")
    gateway.refresh_snapshots()
    gateway.execute("INSERT INTO convoy.metrics_event_queue VALUES (2, 'P', 'half', 5)")
    assert brief(gateway.families("snapshot"), EVENTS) == {"S1": 1.0, "next": 6.0}
