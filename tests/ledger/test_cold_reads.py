"""A read that has no time for everything: what it read stays, the rest is said to be missing, the next goes on."""

from collections.abc import Iterator, Sequence

import pytest

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError
from otel_queue.ledger.reader import LedgerReader, LedgerSnapshot
from otel_queue.lifecycle import AttemptMade, DeliveryCreated, Record
from otel_queue.redis_client import Answers, RedisLink, Request, connect
from tests.ledger.ledgers import Ledger, assert_same, expected, families_of, ledger_server, now_us, ulid

NOW_US = now_us()
PROJECTS = [f"project {number}" for number in range(1000)]
# Five answers for each project that is read for the first time.
ANSWERS = 2500


def records_of(project: str) -> list[Record]:
    return [
        DeliveryCreated(project, ulid(NOW_US, 1), NOW_US, "E", "t", "S", created_us=NOW_US),
        AttemptMade(project, ulid(NOW_US, 1), NOW_US, "E", True, 200),
    ]


RECORDS = [record for project in PROJECTS for record in records_of(project)]


class Impatient:
    """A link that gives `left` answers, and then the time is up."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self.left = 0

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        for answer in self._link.exchange(requests, deadline):
            if not self.left:
                raise ReadError("timeout", "the time for this collection is used up")
            self.left -= 1
            yield answer

    def close(self) -> None:
        self._link.close()


class Watched:
    """A reader that has time for so many answers in each read."""

    def __init__(self, url: str) -> None:
        self.link = Impatient(connect(RedisConfig(url=url)))
        self._reader = LedgerReader(self.link)

    def snapshot(self, answers: int = ANSWERS) -> LedgerSnapshot:
        self.link.left = answers
        return self._reader.snapshot()

    def until_complete(self) -> list[int]:
        """How many projects each read had, until one had all."""
        had: list[int] = []
        for _ in range(10):
            snapshot = self.snapshot()
            had.append(len(snapshot.projects))
            if not snapshot.failures:
                assert_same(families_of(snapshot), expected(RECORDS, snapshot.time))
                return had
            assert snapshot.failures == {"unread": len(PROJECTS) - had[-1]}
        raise AssertionError(f"after ten reads there is still something unread: {had}")


@pytest.fixture
def filled() -> Iterator[str]:
    with ledger_server() as server:
        ledger = Ledger(server.url)
        ledger.write(*RECORDS)
        ledger.close()
        yield server.url


def test_a_cold_read_ends_after_some_reads_however_little_time_each_has(filled: str) -> None:
    had = Watched(filled).until_complete()
    assert len(had) > 2
    assert had == sorted(set(had))


def test_a_read_that_had_no_time_for_anything_is_an_error_and_the_next_one_begins(filled: str) -> None:
    watched = Watched(filled)
    with pytest.raises(ReadError) as raised:
        watched.snapshot(answers=50)
    assert raised.value.reason == "timeout"
    watched.until_complete()


def test_after_a_failover_all_is_read_again_in_as_many_reads() -> None:
    with ledger_server() as server:
        ledger = Ledger(server.url)
        ledger.write(*RECORDS)
        ledger.close()
        watched = Watched(server.url)
        before = watched.until_complete()
        with server.client() as client:
            client.save()
        server.restart()
        assert len(watched.until_complete()) == len(before)


def test_one_project_that_takes_all_the_time_keeps_no_other_from_being_read(filled: str) -> None:
    """As one does whose counts are too many for the time of one read."""
    ledger, watched = Ledger(filled), Watched(filled)
    watched.until_complete()
    ledger.write(DeliveryCreated(PROJECTS[0], ulid(NOW_US, 2), NOW_US, "E", "t", "S", created_us=NOW_US))
    link = watched.link
    exchange = link.exchange

    def stuck(requests: Sequence[Request], deadline: float) -> Answers:
        for answer, asked in zip(exchange(requests, deadline), requests, strict=True):
            if b"counts" in asked.packed and b"{project 0}" in asked.packed:
                raise ReadError("timeout", "the time for this collection is used up")
            yield answer

    link.exchange = stuck  # type: ignore[method-assign]
    for number in range(1, 4):
        changed = PROJECTS[number]
        ledger.write(DeliveryCreated(changed, ulid(NOW_US, 2), NOW_US, "E", "t", "S", created_us=NOW_US))
    seen = [watched.snapshot(answers=100_000) for _ in range(8)][-1]
    assert seen.failures == {"unread": 1}
    assert {project.project for project in seen.projects} == set(PROJECTS[1:])
    others = [project for project in seen.projects if project.project in PROJECTS[1:4]]
    assert [sum(project.deliveries.values()) for project in others] == [2, 2, 2]
    ledger.close()
