"""What Convoy's own SQL says after each step of a delivery's life, and what the ledger says.

Columns: EVENTS = convoy_event_queue_total{source}, WAIT = convoy_event_queue_backlog_seconds{source}, DELIVERIES =
convoy_event_delivery_queue_total{endpoint, status, source}, ENDPOINT WAIT = convoy_event_delivery_queue_backlog_seconds
{endpoint, source}, ATTEMPTS = convoy_event_delivery_attempts_total{endpoint, status, http_status_code}, which Convoy
never fills. "-" is no series, "" is an empty label. Each scenario begins with an empty ledger; its steps add up.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest

from otel_queue.lifecycle import (
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from tests.ledger.ledgers import DAY_US, Ledger, day_of, families_of, now_us, ulid
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, DELIVERY_BACKLOG, EVENT_BACKLOG, EVENTS, Families

# Why ours differs, by the owner's decisions.
KNOWN = "a known group with nothing in processing is 0, not gone"
STAYS = "a source stays what it was when its event's row goes"
ONCE = "a replayed event or delivery counts once"
TRUE_COUNT = "attempts are counted, one per attempt id"
UNTOLD = "a label that no hook has told yet is unknown"
NO_HOOK = "a row that an operator soft-deletes by hand is not told of; reconciling finds it"
ADDS_UP = "two groups that share a label add up, and do not hide each other"


class Clock:
    """Times of one scenario: `ago` in Unix microseconds, and a later time for each record."""

    def __init__(self) -> None:
        self.start_us = now_us()
        self._ticks = 0

    def ago(self, seconds: float) -> int:
        return self.start_us - int(seconds * 1e6)

    def tick(self) -> int:
        self._ticks += 1
        return self.start_us - 1_000_000 + self._ticks


Step = Callable[[Clock], list[Record]]


def event(name: str = "e1", source: str | None = None, days_ago: int = 0) -> Step:
    def records(clock: Clock) -> list[Record]:
        event_id = ulid(clock.start_us - days_ago * DAY_US, 1) if days_ago else name
        return [EventCreated("P", event_id, clock.tick(), source)]

    return records


def delivery(
    name: str,
    endpoint: str | None,
    status: str,
    source: str | None = None,
    ago: float = 0,
    event_type: str | None = "t",
) -> Step:
    """The row is created as Scheduled, and has the status now."""

    def records(clock: Clock) -> list[Record]:
        created = DeliveryCreated(
            "P", name, clock.tick(), endpoint, event_type, source, "Scheduled", created_us=clock.ago(ago)
        )
        return [created] if status == "Scheduled" else [created, StatusSet("P", name, status, clock.tick())]

    return records


def status(name: str, new: str) -> Step:
    return lambda clock: [StatusSet("P", name, new, clock.tick())]


def attempt(name: str, endpoint: str, succeeded: bool, code: str | None) -> Step:
    return lambda clock: [AttemptMade("P", name, clock.tick(), endpoint, succeeded, code)]


def named(name: str) -> Step:
    return lambda clock: [ProjectDescribed("P", clock.tick(), name, "O", "Org")]


def expire_yesterday() -> Step:
    return lambda clock: [DayExpired("P", day_of(clock.start_us - DAY_US))]


def both(*steps: Step) -> Step:
    return lambda clock: [record for step in steps for record in step(clock)]


@dataclass(frozen=True)
class Row:
    number: str
    step: Step
    legacy: tuple[str, str, str, str]  # EVENTS, WAIT, DELIVERIES, ENDPOINT WAIT; without attempts
    ours: Mapping[str, str]  # what differs, by column
    because: str = ""


def row(number: str, step: Step, *legacy: str, because: str = "", **ours: str) -> Row:
    events, wait, deliveries, endpoint_wait = legacy
    return Row(number, step, (events, wait, deliveries, endpoint_wait), ours, because)


nothing: Step = both()

# fmt: off
SCENARIOS: dict[str, list[Row]] = {
    "a delivery without a source": [
        #            step                              EVENTS      WAIT      DELIVERIES                ENDPOINT WAIT
        row("1a", event(),                            "http=1",   "-",      "-",                      "-"),
        row("1b", delivery("d1", "E1", "Scheduled", ago=5),
                                                      "http=1",   "-",      "E1,scheduled,http=1",    "-",
            wait="http=0", endpoint_wait="E1,http=0", because=KNOWN),
        row("1c", status("d1", "Processing"),         "http=1",   "http=5", "E1,processing,http=1",   "E1,http=5"),
        row("1d", status("d1", "Success"),            "http=1",   "http=0", "E1,success,http=1",      "E1,http=0"),
    ],
    "retries until failure": [
        row("2a", both(event(source="S1"), delivery("d1", "E1", "Processing", "S1", ago=60)),
                                                      "S1=1",     "S1=60",  "E1,processing,S1=1",     "E1,S1=60"),
        row("2b", both(attempt("a1", "E1", False, "503 Service Unavailable"), status("d1", "Retry")),
                                                      "S1=1",     "-",      "E1,retry,S1=1",          "-",
            wait="S1=0", endpoint_wait="E1,S1=0", attempts="E1,failure,503=1", because=KNOWN),
        row("2c", both(attempt("a2", "E1", False, None), status("d1", "Failure")),
                                                      "S1=1",     "-",      "E1,failure,S1=1",        "-",
            wait="S1=0", endpoint_wait="E1,S1=0", attempts="E1,failure,503=1 E1,failure,none=1", because=KNOWN),
    ],
    "fan-out to three endpoints, one inactive": [
        row("3", both(event(), delivery("d1", "E1", "Success"), delivery("d2", "E2", "Processing", ago=30),
                      delivery("d3", "E3", "Discarded")),
            "http=1", "http=30", "E1,success,http=1 E2,processing,http=1 E3,discarded,http=1", "E1,http=0 E2,http=30",
            endpoint_wait="E1,http=0 E2,http=30 E3,http=0", because=KNOWN),
    ],
    "the same idempotency key twice, before matching": [
        row("4", both(event("e1"), event("e2")),      "http=2",   "-",      "-",                      "-"),
    ],
    "force resend of an hour-old success": [
        row("5a", both(event(), delivery("d1", "E1", "Success", ago=3600)),
                                                      "http=1", "http=0",   "E1,success,http=1",      "E1,http=0"),
        row("5b", status("d1", "Scheduled"),          "http=1", "-",        "E1,scheduled,http=1",    "-",
            wait="http=0", endpoint_wait="E1,http=0", because=KNOWN),
        row("5c", status("d1", "Processing"),         "http=1", "http=3600", "E1,processing,http=1",  "E1,http=3600"),
        row("5d", status("d1", "Failure"),            "http=1", "-",        "E1,failure,http=1",      "-",
            wait="http=0", endpoint_wait="E1,http=0", because=KNOWN),
    ],
    "a project is renamed, then deleted": [
        row("6", both(named("Proj"), event(), delivery("d1", "E1", "Processing", ago=10)),
                                                      "http=1", "http=10",  "E1,processing,http,Proj=1", "E1,http=10"),
        row("6a", named("New"),                       "http=1", "http=10",  "E1,processing,http,New=1", "E1,http=10"),
        row("6b", nothing,                            "http=1", "http=10",  "-",                      "E1,http=10",
            deliveries="E1,processing,http,New=1", because=NO_HOOK),
    ],
    "retention takes the event's day before the delivery's": [
        row("7-", both(event(source="S1", days_ago=1), delivery("d1", "E1", "Success", "S1")),
                                                      "S1=1",     "S1=0",   "E1,success,S1=1",        "E1,S1=0"),
        row("7", expire_yesterday(),                  "-",        "http=0", "E1,success,http=1",      "E1,http=0",
            wait="S1=0", deliveries="E1,success,S1=1", endpoint_wait="E1,S1=0", because=STAYS),
    ],
    "a replay on partitioned tables": [
        row("8-", both(event(source="S1"), delivery("d1", "E1", "Success", "S1")),
                                                      "S1=1",     "S1=0",   "E1,success,S1=1",        "E1,S1=0"),
        row("8a", event(source="S1"),                 "S1=2",     "S1=0",   "E1,success,S1=2",        "E1,S1=0",
            events="S1=1", deliveries="E1,success,S1=1", because=ONCE),
        row("8b", delivery("d2", "E1", "Scheduled", "S1"),
            "S1=2", "S1=0", "E1,scheduled,S1=2 E1,success,S1=2", "E1,S1=0",
            events="S1=1", deliveries="E1,scheduled,S1=1 E1,success,S1=1", because=ONCE),
    ],
    "rows with NULLs": [
        row("9", both(event(), delivery("d1", None, "Scheduled"), delivery("d2", "E1", "Success", event_type=None)),
            "http=1", "http=0", '"",scheduled,http=1 E1,success,http,type ""=1', "E1,http=0",
            endpoint_wait='"",http=0 E1,http=0', because=KNOWN),
    ],
    "two sources at shared endpoints": [
        row("10", both(event("e1", "S1"), event("e2", "S2"), delivery("d1", "E1", "Success", "S1"),
                       delivery("d2", "E1", "Processing", "S1", ago=20),
                       delivery("d3", "E1", "Processing", "S1", ago=90), delivery("d4", "E1", "Success", "S2"),
                       delivery("d5", "E2", "Retry", "S2", ago=500)),
            "S1=1 S2=1", "S1=90 S2=0",
            "E1,processing,S1=2 E1,success,S1=1 E1,success,S2=1 E2,retry,S2=1", "E1,S1=90 E1,S2=0",
            endpoint_wait="E1,S1=90 E1,S2=0 E2,S2=0", because=KNOWN),
    ],
    "a lease expires after the attempt, and the send is repeated": [
        row("11", both(event(), delivery("d1", "E1", "Processing"), attempt("a1", "E1", True, "200 OK"),
                       status("d1", "Processing"), attempt("a2", "E1", True, "200 OK"), status("d1", "Success")),
                                                      "http=1",   "http=0", "E1,success,http=1",      "E1,http=0",
            attempts="E1,success,200=2", because=TRUE_COUNT),
    ],
    "a worker dies in a retry, and the delivery is stranded": [
        row("12", both(event(), delivery("d1", "E1", "Processing", ago=7200), nothing),
                                                      "http=1", "http=7200", "E1,processing,http=1",  "E1,http=7200"),
    ],
    "a project whose row is missing": [
        row("13", both(event(), delivery("d1", "E1", "Success")),
                                                      "http=1",   "http=0", "E1,success,http=1",      "E1,http=0"),
    ],
    "a recorder that is younger than the delivery": [
        row("14", lambda clock: [StatusSet("P", "d1", "Processing", clock.tick(), "E1", "t", created_us=clock.ago(9))],
                                                      "-",        "S1=9",   "E1,processing,S1=1",     "E1,S1=9",
            wait="unknown=9", deliveries="E1,processing,unknown=1", endpoint_wait="E1,unknown=9", because=UNTOLD),
        row("14a", lambda clock: [StatusSet("P", "d1", "Success", clock.tick(), source="S1")],
                                                      "-",        "S1=0",   "E1,success,S1=1",        "E1,S1=0"),
    ],
    "a source that is called http beside events without one": [
        row("15", both(event("e1"), event("e2", "http")), "http=1", "-",    "-",                      "-",
            events="http=2", because=ADDS_UP),
    ],
}
# fmt: on
COLUMNS = ("events", "wait", "deliveries", "endpoint_wait", "attempts")


def shown(families: Families, waited_seconds: float) -> dict[str, str]:
    """The families as the table has them; ages as of the scenario's beginning."""
    found: dict[str, list[str]] = {name: [] for name in COLUMNS}
    for (project, source, _), count in families[EVENTS].items():
        assert project == "P"
        found["events"].append(f"{quoted(source)}={count:.0f}")
    for (_, source), age in families[EVENT_BACKLOG].items():
        found["wait"].append(f"{quoted(source)}={seconds(age, waited_seconds)}")
    for (_, name, endpoint, delivery_status, event_type, source, _, _), count in families[DELIVERIES].items():
        extra = (f",{name}" if name else "") + ("" if event_type == "t" else f",type {quoted(event_type)}")
        found["deliveries"].append(f"{quoted(endpoint)},{delivery_status},{quoted(source)}{extra}={count:.0f}")
    for (_, endpoint, source), age in families[DELIVERY_BACKLOG].items():
        found["endpoint_wait"].append(f"{quoted(endpoint)},{quoted(source)}={seconds(age, waited_seconds)}")
    for (_, *labels), count in families[ATTEMPTS].items():
        found["attempts"].append(f"{','.join(labels)}={count:.0f}")
    return {name: " ".join(sorted(series)) or "-" for name, series in found.items()}


def quoted(label: str) -> str:
    return label or '""'


def seconds(age: float, waited_seconds: float) -> int:
    return round(age - waited_seconds) if age else 0


@pytest.mark.parametrize("name", SCENARIOS)
def test_the_ledger_says_what_the_database_said_but_for_the_decisions(ledger: Ledger, name: str) -> None:
    clock = Clock()
    for step in SCENARIOS[name]:
        ledger.write(*step.step(clock))
        snapshot = ledger.snapshot()
        legacy = dict(zip(COLUMNS, (*step.legacy, "-"), strict=True))
        assert shown(families_of(snapshot), snapshot.time - clock.start_us / 1e6) == {**legacy, **step.ours}, (
            step.number
        )
    assert ledger.differences() == []


def test_every_difference_in_the_table_is_one_and_has_its_reason() -> None:
    for step in (step for steps in SCENARIOS.values() for step in steps):
        legacy = dict(zip(COLUMNS, (*step.legacy, "-"), strict=True))
        assert all(legacy[column] != value for column, value in step.ours.items()), step.number
        assert bool(step.ours) == bool(step.because), step.number


def test_more_than_a_thousand_groups_in_processing_are_all_there_with_the_oldest(ledger: Ledger) -> None:
    """The database's view is cut at 1000 groups twice, and then hides the oldest."""
    clock = Clock()
    ledger.write(
        *(
            StatusSet("P", f"d{age}", "Processing", clock.tick(), f"E{age}", "t", "S1", created_us=clock.ago(age))
            for age in range(1, 1501)
        )
    )
    families, now = ledger.read()
    waits = families[DELIVERY_BACKLOG]
    assert len(waits) == 1500
    assert max(waits, key=lambda labels: waits[labels]) == ("P", "E1500", "S1")
    assert families[EVENT_BACKLOG] == {("P", "S1"): pytest.approx(now - clock.ago(1500) / 1e6)}
