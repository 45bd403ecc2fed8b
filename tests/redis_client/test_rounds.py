"""Readings in lock step: what each gets, in which round trip, and what becomes of its errors."""

from collections.abc import Sequence
from typing import Any

import pytest

from otel_queue.errors import ReadError
from otel_queue.redis_client import Answers, ErrorReply, Reading, Reply, Request, Rounds, ask, pack, request

CLOCK = [b"1700000000", b"250000"]


class Replaying:
    """A link that answers the n-th exchange with the n-th of `rounds`, the clock first in each."""

    def __init__(self, *rounds: Sequence[list[Reply] | ReadError]) -> None:
        self._rounds = iter(rounds)
        self.asked: list[list[Request]] = []
        self.deadlines: list[float] = []
        self.open = 0

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        self.asked.append(list(requests))
        self.deadlines.append(deadline)
        self.open += 1
        try:
            yield from next(self._rounds)
        finally:
            self.open -= 1

    def close(self) -> None:
        raise NotImplementedError


def get(*keys: bytes) -> Reading[list[Any]]:
    """One key after the other."""
    found: list[Any] = []
    for key in keys:
        found += yield request(key, [("GET", key)])
    return found


def rounds_of(link: Replaying) -> Rounds:
    return Rounds(link, 77.0, clock_key=b"clock")


def test_readings_share_their_round_trips_and_end_when_they_have_what_they_need() -> None:
    link = Replaying([[CLOCK], [b"a"], [b"x"]], [[CLOCK], [b"b"]])
    rounds = rounds_of(link)
    assert rounds.run([get(b"1", b"2"), get(b"3")]) == [[b"a", b"b"], [b"x"]]
    assert [[each.key for each in asked] for asked in link.asked] == [[b"clock", b"1", b"3"], [b"clock", b"2"]]
    assert link.asked[0][0].packed == pack("TIME")
    assert (rounds.round_trips, rounds.time, link.deadlines) == (2, 1_700_000_000.25, [77.0, 77.0])


def test_without_readings_nothing_is_asked() -> None:
    link = Replaying()
    rounds = rounds_of(link)
    assert rounds.run([]) == []
    assert (link.asked, rounds.round_trips, rounds.time) == ([], 0, None)


def test_a_reading_that_needs_nothing_costs_no_round_trip() -> None:
    link = Replaying()
    assert rounds_of(link).run([get()]) == [[]]
    assert link.asked == []


@pytest.mark.parametrize("clock", [ReadError("timeout", "gone"), [ErrorReply("NOPERM no permissions to run 'time'")]])
def test_a_clock_that_is_refused_is_no_time_and_no_failure(clock: Any) -> None:
    rounds = rounds_of(Replaying([clock, [b"a"]]))
    assert rounds.run([get(b"1")]) == [[b"a"]]
    assert rounds.time is None


def test_the_time_is_that_of_the_latest_round() -> None:
    rounds = rounds_of(Replaying([[CLOCK], [b"a"]], [[[b"1700000001", b"0"]], [b"b"]]))
    rounds.run([get(b"1", b"2")])
    assert rounds.time == 1_700_000_001.0


def test_a_part_that_could_not_be_read_is_raised_in_its_reading_which_may_go_on() -> None:
    def stubborn() -> Reading[str]:
        try:
            yield request(b"1", [("GET", "1")])
        except ReadError as error:
            replies = yield request(b"2", [("GET", "2")])
            return f"{error.reason}, then {replies[0]!r}"
        return "read"

    link = Replaying([[CLOCK], ReadError("timeout", "gone"), [b"x"]], [[CLOCK], [b"b"]])
    assert rounds_of(link).run([stubborn(), get(b"3")]) == [f"timeout, then {b'b'!r}", [b"x"]]


def test_who_asked_to_be_told_of_an_error_is_told_and_the_others_are_read() -> None:
    rounds = rounds_of(Replaying([[CLOCK], ReadError("timeout", "gone"), [b"x"]]))
    done: list[object] = []
    failed: list[ReadError] = []
    rounds.start(get(b"1"), done.append, failed.append)
    rounds.start(get(b"2"), done.append, failed.append)
    rounds.finish()
    assert done == [[b"x"]]
    assert [error.reason for error in failed] == ["timeout"]


def test_an_error_that_nobody_takes_is_raised_and_leaves_the_connection_to_others() -> None:
    link = Replaying([[CLOCK], ReadError("timeout", "gone"), [b"x"]])
    with pytest.raises(ReadError, match="gone"):
        rounds_of(link).run([get(b"1"), get(b"2")])
    assert link.open == 0


def test_what_a_result_starts_joins_at_the_next_round() -> None:
    link = Replaying([[CLOCK], [b"a"]], [[CLOCK], [b"b"]])
    rounds = rounds_of(link)
    found: list[object] = []

    def follow(result: list[Any]) -> None:
        found.append(result)
        rounds.start(get(b"2"), found.append)

    rounds.start(get(b"1"), follow)
    rounds.finish()
    assert found == [[b"a"], [b"b"]]
    assert rounds.round_trips == 2


def test_answers_that_are_one_too_few_are_an_error_of_ours() -> None:
    with pytest.raises(ValueError, match="zip"):
        rounds_of(Replaying([[CLOCK], [b"a"]])).run([get(b"1"), get(b"2")])


def test_asking_needs_all_parts_and_raises_the_error_of_one() -> None:
    wanted = [request(b"1", [("GET", "1")]), request(b"2", [("GET", "2"), ("GET", "3")])]
    link = Replaying([[b"a"], [b"b", b"c"]], [[b"a"], ReadError("timeout", "gone")])
    assert ask(link, wanted, 5.0) == [[b"a"], [b"b", b"c"]]
    assert link.asked == [wanted]
    with pytest.raises(ReadError, match="gone"):
        ask(link, wanted, 5.0)


def test_a_request_is_its_commands_in_redis_own_format_with_the_number_of_replies() -> None:
    assert request(b"k", [("GET", b"k"), ("LRANGE", "k", -1, 5)]) == Request(
        b"k",
        b"*2\r\n$3\r\nGET\r\n$1\r\nk\r\n*4\r\n$6\r\nLRANGE\r\n$1\r\nk\r\n$2\r\n-1\r\n$1\r\n5\r\n",
        2,
    )
