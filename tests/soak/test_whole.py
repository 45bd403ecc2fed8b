"""What judges the whole run: each rule that it has, broken once. The run itself takes minutes: `make soak`."""

import contextlib
import time
from collections import Counter

import pytest

from otel_queue.lifecycle import Record, StatusSet
from tests.faults.drill import PENDING, QUEUE
from tests.ledger.ledgers import KINDS, Ledger, now_us
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, EVENTS, Oracle, last_status
from tests.soak.whole.load import Book
from tests.soak.whole.run import Plan, Result
from tests.soak.whole.tasks import LANES, Schedule, Told
from tests.soak.whole.verdict import Verdict
from tests.soak.whole.watch import Judge, Seen, Vitals

NOW_US = 1_700_000_000_000_000
LONG_AFTER = 1_000.0
SCHEDULE = Schedule(7, NOW_US, 50.0)
EXACT = [number for number in range(100) if SCHEDULE.task(number).lane.is_exact]


def scrape(events: int, attempts: int = 0, pending: int = PENDING, project: str = "exact-0") -> Seen:
    return Seen(
        f'{EVENTS}{{project="{project}",source="http",status="success"}} {events}\n'
        f'{DELIVERIES}{{project="{project}",endpoint="E",status="success"}} {events}\n'
        f'{ATTEMPTS}{{project="{project}",endpoint="E",status="success",http_status_code="200"}} {attempts}\n'
        f'asynq_queue_size{{queue="{QUEUE}"}} {pending}\n'
    )


@pytest.fixture
def book() -> Book:
    """A hundred tasks were told, and those of the exact lanes are confirmed."""
    told = Book()
    for number in range(100):
        told.enqueue(number)
    told.confirm(set(EXACT))
    return told


def test_a_scrape_between_what_was_confirmed_and_what_was_told_is_right(book: Book) -> None:
    judge = Judge(book)
    for events in (len(EXACT), len(EXACT), 100):
        judge.judge(scrape(events, events), time.monotonic() + LONG_AFTER)


def test_a_counter_that_falls_is_wrong(book: Book) -> None:
    judge = Judge(book)
    judge.judge(scrape(70, 10), time.monotonic())
    with pytest.raises(AssertionError, match="fell from 10"):
        judge.judge(scrape(70, 9), time.monotonic())
    with pytest.raises(AssertionError, match="fell from 70"):
        judge.judge(scrape(69, 10), time.monotonic())


def test_more_than_was_told_is_wrong(book: Book) -> None:
    with pytest.raises(AssertionError, match="100 were told"):
        Judge(book).judge(scrape(101), time.monotonic())


def test_less_than_was_confirmed_long_ago_is_wrong_and_less_than_just_now_is_not(book: Book) -> None:
    Judge(book).judge(scrape(len(EXACT) - 1), time.monotonic())
    with pytest.raises(AssertionError, match="were confirmed before"):
        Judge(book).judge(scrape(len(EXACT) - 1), time.monotonic() + LONG_AFTER)
    with pytest.raises(AssertionError, match="were confirmed before"):
        Judge(book).judge(scrape(100, project="buffered-0"), time.monotonic() + LONG_AFTER)


def test_a_false_zero_is_wrong_and_nothing_at_all_is_not(book: Book) -> None:
    Judge(book).judge(Seen(""), time.monotonic() + LONG_AFTER)
    with pytest.raises(AssertionError, match="asynq_queue_size"):
        Judge(book).judge(scrape(80, pending=0), time.monotonic())


def test_what_a_killed_worker_had_not_flushed_may_be_lost_until_it_is_told_again(book: Book) -> None:
    rest = set(range(100)) - set(EXACT)
    some = set(sorted(rest)[:5])
    steps = [(book.confirm, rest - some), (book.lose, some), (book.confirm, some)]
    found = []
    for step, numbers in steps:
        step(numbers)
        found.append((book.is_settled, set(book.may_be_lost)))
    assert found == [(False, set()), (True, some), (True, set())]


def test_a_task_that_is_confirmed_twice_counts_once(book: Book) -> None:
    book.confirm(set(EXACT[:3]))
    assert book.handled_again == 3
    assert book.exact_confirmed_before(time.monotonic()) == len(EXACT)


def test_the_database_gets_what_the_ledger_is_told() -> None:
    oracle = Oracle(NOW_US / 1e6)
    statuses: Counter[str] = Counter()
    attempts = 0
    for number in range(500):
        task = SCHEDULE.task(number)
        for record in task.plain():
            oracle.take(record)
        event, deliveries, calls = task.rows()
        assert event[0] == task.event_id
        statuses.update(row[2].lower() for row in deliveries)
        attempts += len(calls)
    assert statuses == Counter(last_status(told) for told in oracle.deliveries.values())
    assert attempts == len(oracle.attempts)
    assert set(statuses) == {"processing", "success", "failure"}


def test_tasks_are_shared_by_all_lanes_and_no_id_is_there_twice() -> None:
    ids: Counter[str] = Counter()
    for number in range(1_000):
        task = SCHEDULE.task(number)
        assert task.calls == Told(task.seed, number, task.created_us).calls
        told = [arguments for _, arguments in task.calls]
        ids.update({value for each in told for key, value in each.items() if key.endswith("_id")})
    assert {SCHEDULE.task(number).lane for number in range(10)} == set(LANES)
    assert ids.most_common(1)[0][1] == 1


def test_growth_is_told_from_the_middle_of_each_span() -> None:
    vitals = Vitals(memory=[10, 10, 99, 20, 20], descriptors=[1] * 5, threads=[1] * 5, times=[0, 1, 2, 3, 4])
    assert vitals.median("memory", 0, 2) == 10
    assert vitals.median("memory", 3, 4) == 20


def test_a_short_run_has_time_for_each_kind_of_fault() -> None:
    assert Plan(60, 1).fault_seconds == 60
    assert 5 * 60 / Plan(5, 1).fault_seconds > 15


def test_a_bound_that_is_not_kept_is_in_the_result() -> None:
    result = Result(Plan(1, 1), figures={"a": {"b": 1}})
    result.require(True, "fine")
    result.require(False, "broken")
    assert result.broken == ["broken"]
    assert result.document() == {"a": {"b": 1}, "broken": ["broken"]}
    assert result.rows() == [("a: b", 1)]


def test_a_verdict_tells_records_that_are_missing_and_a_status_that_is_wrong(redis_url: str) -> None:
    """In a ledger with all tasks but one of an exact lane; and with one delivery that went on."""
    schedule = Schedule(7, now_us() - 3_600_000_000, 50.0)
    left_out = 5
    with contextlib.closing(Ledger(redis_url)) as ledger:
        for number in range(40):
            if number != left_out:
                ledger.write(*records_of(schedule.task(number)))
        verdict = Verdict(redis_url, schedule, 40)
        things = sum(name != "status_set" for name, _ in schedule.task(left_out).calls)
        assert verdict.missing() == verdict.unheld([left_out]) == things
        assert verdict.unheld([0, 1, 2]) == 0
        assert verdict.wrong(exact_only=True)
        ledger.write(*records_of(schedule.task(left_out)))
        assert (verdict.missing(), verdict.wrong(), verdict.differences()) == (0, [], [])
        ledger.write(StatusSet("exact-0", schedule.task(0).calls[1][1]["delivery_id"], "discarded", now_us()))
        assert verdict.missing() == 0
        assert verdict.wrong(exact_only=True)
        verdict.close()


def records_of(task: Told) -> list[Record]:
    kinds = {name: kind for kind, name in KINDS.items()}
    return [kinds[told.pop("kind")](**told) for told in task.plain()]
