import json
from typing import Any

import pytest

from otel_queue.catalog import CATALOG
from otel_queue.cli import FINDING, FINE, UNREACHABLE, USAGE, main
from otel_queue.lifecycle import DeliveryCreated, EventCreated, ProjectDescribed, StatusSet
from otel_queue.shadow import comparison, legacy
from otel_queue.shadow.entry import Entry, Standing
from otel_queue.shadow.journal import Journal
from otel_queue.shadow.meanings import MEANINGS
from otel_queue.shadow.tolerance import tolerance
from tests.ledger.ledgers import Ledger, now_us
from tests.postgres.gateway import Gateway
from tests.servers.process import free_port
from tests.shadow.sides import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS, series

METRICS = (EVENTS, EVENT_BACKLOG, DELIVERIES, DELIVERY_BACKLOG, ATTEMPTS)
SHADOWED = ("--domain-source", "postgres", "--domain-shadow", "ledger")
GATE = ("--domain-gate-seconds", "3600", "--domain-gate-comparisons", "10")

Captured = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def dsn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Settings ask for one wherever postgres is named; the report does not use it."""
    monkeypatch.setenv("OTEL_QUEUE_POSTGRES_DSN", f"postgres://127.0.0.1:{free_port()}/none")


def keep(journal: Journal, metrics: tuple[str, ...] = METRICS, **values: Any) -> None:
    """Entries that are ready, but for what the test says."""
    read = journal.read()
    told: dict[str, Any] = {"comparisons": 20, "first": read.time - 9000, "last": read.time - 5, "within": 20,
                            "within_since": read.time - 9000}  # fmt: skip
    journal.keep([Entry(metric, tolerance(metric).digest, **{**told, **values}) for metric in metrics], read)


def report(redis_url: str, *options: str) -> int:
    return main(["shadow", "report", "--redis-url", redis_url, *SHADOWED, *GATE, *options])


def test_a_report_of_metrics_that_are_ready_is_fine(journal: Journal, redis_url: str, capsys: Captured) -> None:
    keep(journal)
    assert report(redis_url) == FINE
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:2] == ["METRIC", "VERDICT"]
    assert [line.split()[:2] for line in lines[1:]] == [[metric, "ready"] for metric in METRICS]


def test_one_metric_that_is_not_ready_is_a_finding_with_its_reason(
    journal: Journal, redis_url: str, capsys: Captured
) -> None:
    keep(journal)
    worst = Standing(series(EVENTS, "S7"), 3.0, 4.0, 9.0, 5.0, "", 1_700_000_000.0, 6, 6, True)
    keep(journal, (EVENTS,), standing=1, within=0, within_since=None, drift=5.0, worst=(worst,), known={"retention": 2},
         legacy={"cut_at_1000": 500})  # fmt: skip
    keep(journal, (DELIVERIES,), within=4)
    assert report(redis_url) == FINDING
    out = capsys.readouterr().out
    assert "standing difference of 1 series since 2023-11-14T22:13:20Z" in out
    assert "within tolerance in only 4 of 10 comparisons" in out
    [row] = [line for line in out.splitlines() if "source=S7" in line]
    assert row.split()[:7] == [EVENTS, "3..4", "9", "5", "yes", "6", "2023-11-14T22:13:20Z"]
    assert "ledger: retention" in out
    assert MEANINGS["legacy", "cut_at_1000"] in out


def test_a_journal_that_holds_nothing_is_never_compared(redis_url: str, capsys: Captured) -> None:
    assert report(redis_url) == FINDING
    assert capsys.readouterr().out.count("never compared") == len(METRICS)
    assert report(redis_url, "--json") == FINDING
    assert {row["verdict"] for row in json.loads(capsys.readouterr().out)["metrics"]} == {"not ready"}


def test_what_could_never_be_compared_lacks_no_series_that_anyone_knows_of(
    journal: Journal, redis_url: str, capsys: Captured
) -> None:
    journal.keep([Entry(EVENTS, "rule").skip("lagging_replica")], journal.read())
    assert report(redis_url, "--json") == FINDING
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["metrics"]}
    assert (rows[EVENTS]["drift"], rows[EVENTS]["missing"], rows[EVENTS]["comparisons"]) == (None, None, 0)


def test_a_report_as_json_has_the_same_keys_for_every_metric(
    journal: Journal, redis_url: str, capsys: Captured
) -> None:
    worst = Standing(series(EVENTS, "S7"), 0.0, 0.0, 9.0, 9.0, "ledger", 1_700_000_000.5, 6, 6, True)
    keep(journal, (EVENTS,), worst=(worst,), legacy={"other": 3}, skipped={"lagging_replica": 2}, drift=9.0)
    assert report(redis_url, "--json") == FINDING
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["metrics"]}
    assert set(rows) == set(METRICS)
    assert len({tuple(row) for row in rows.values()}) == 1
    row = rows[EVENTS]
    assert (row["verdict"], row["reasons"], row["drift"], row["skipped"]) == ("ready", [], 9.0, {"lagging_replica": 2})
    assert row["worst"] == [
        {
            "labels": {"project": "P", "source": "S7", "status": "success"},
            "ledger": None,
            "postgres": 9.0,
            "difference": 9.0,
            "missing": "ledger",
            "since": "2023-11-14T22:13:20Z",
            "comparisons": 6,
            "stands": True,
        }
    ]
    [known] = row["known_differences"]
    assert (known["side"], known["difference"], known["series"]) == ("legacy", "other", 3)
    assert rows[DELIVERIES]["drift"] is None


def test_a_report_without_a_shadow_says_what_to_set(redis_url: str, capsys: Captured) -> None:
    assert main(["shadow", "report", "--redis-url", redis_url, "--domain-source", "ledger"]) == USAGE
    assert "domain.shadow" in capsys.readouterr().err


def test_every_named_difference_has_its_words() -> None:
    names = {("legacy", value) for name, value in vars(legacy).items() if name.isupper() and isinstance(value, str)
             and not name.startswith("_") and value not in CATALOG}  # fmt: skip
    names |= {("ledger", comparison.SOURCE_OF_GONE_EVENT), ("ledger", comparison.RETENTION)}
    assert set(MEANINGS) == names


# One comparison now


@pytest.fixture
def both(gateway: Gateway, ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> Gateway:
    """A database and a ledger that say the same."""
    monkeypatch.setenv("OTEL_QUEUE_POSTGRES_DSN", gateway.dsn.reveal())
    gateway.event("e1", source="S1")
    gateway.delivery("d1", "e1", "Success")
    ledger.write(
        ProjectDescribed("P", now_us(), "Proj", "O", "Org"),
        EventCreated("P", "e1", now_us(), "S1"),
        DeliveryCreated("P", "d1", now_us(), "E1", "t", "S1"),
        StatusSet("P", "d1", "success", now_us()),
    )
    return gateway


def compare(redis_url: str, *options: str) -> int:
    return main(["shadow", "compare", "--redis-url", redis_url, *options])


def test_sides_that_say_the_same_are_fine_and_the_journal_is_untouched(
    both: Gateway, journal: Journal, redis_url: str, capsys: Captured
) -> None:
    assert compare(redis_url, "--exact") == FINE
    out = capsys.readouterr().out
    assert out.count("within tolerance") == 4
    assert "not compared" in out
    assert journal.read().entries == {}


def test_a_difference_is_a_finding_and_in_flight_only_when_it_has_to_be_exact(
    both: Gateway, redis_url: str, capsys: Captured
) -> None:
    both.delivery("d2", "e1", "Success")
    both.execute("UPDATE convoy.event_deliveries SET status = 'Success'")
    assert compare(redis_url, "--json") == FINDING
    rows = {row["metric"]: row for row in json.loads(capsys.readouterr().out)["metrics"]}
    assert (rows[DELIVERIES]["verdict"], rows[DELIVERIES]["drift"]) == ("differs", 1.0)
    assert rows[DELIVERIES]["worst"][0]["labels"]["source"] == "S1"
    assert rows[EVENTS]["verdict"] == "within tolerance"
    assert rows[ATTEMPTS]["verdict"] == "not compared"


def test_what_tolerance_allows_is_not_exact(both: Gateway, ledger: Ledger, redis_url: str) -> None:
    for delivery in ("d2", "d3"):
        both.delivery(delivery, "e1", "Retry")
    ledger.write(StatusSet("P", "d2", "retry", now_us(), "E1", "t", "S1"))
    assert compare(redis_url) == FINE
    assert compare(redis_url, "--exact") == FINDING


def test_legacy_differences_are_named_where_they_are_exported(both: Gateway, redis_url: str, capsys: Captured) -> None:
    both.execute("UPDATE convoy.event_deliveries SET status = 'Retry'")
    compare(redis_url, "--postgres-parity", "legacy")
    assert MEANINGS["legacy", "zero_for_known_group"] in capsys.readouterr().out
    compare(redis_url)
    assert MEANINGS["legacy", "zero_for_known_group"] not in capsys.readouterr().out


def test_a_side_that_cannot_be_read_is_unreachable(ledger: Ledger, redis_url: str, capsys: Captured) -> None:
    assert compare(redis_url) == UNREACHABLE
    assert compare(f"redis://127.0.0.1:{free_port()}/0") == UNREACHABLE
    assert "connection" in capsys.readouterr().err


def test_without_a_database_it_says_what_to_set(
    redis_url: str, monkeypatch: pytest.MonkeyPatch, capsys: Captured
) -> None:
    monkeypatch.delenv("OTEL_QUEUE_POSTGRES_DSN")
    assert compare(redis_url) == USAGE
    assert "OTEL_QUEUE_POSTGRES_DSN" in capsys.readouterr().err
