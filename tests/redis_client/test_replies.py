"""Replies become values, or an error that says what came instead."""

from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from otel_queue.errors import ReadError
from otel_queue.redis_client import (
    ErrorReply,
    Fields,
    array,
    counted,
    counter,
    decimal,
    integer,
    names,
    scored,
    taking_apart,
    text,
    time_us,
    unexpected,
)

REFUSED = ErrorReply("WRONGTYPE Operation against a key holding the wrong kind of value")

TAKEN: list[tuple[Callable[[Any], object], object, object]] = [
    (integer, 7, 7),
    (array, [1, None], [1, None]),
    (names, [], []),
    (names, [b"a", b""], [b"a", b""]),
    (text, b"a", b"a"),
    (text, None, None),
    (counter, b"12", 12),
    (counter, None, None),
    (counted, b"12", 12),
    (counted, b"0", 0),
    (counted, None, 0),
    (decimal, b"-12", -12),
    (decimal, b"9" * 19, int("9" * 19)),
    (decimal, b"-" + b"9" * 19, -int("9" * 19)),
    (scored, [], []),
    (scored, [b"a", b"1.5", b"b", b"-inf"], [(b"a", 1.5), (b"b", float("-inf"))]),
    (time_us, [b"1700000000", b"12"], 1_700_000_000_000_012),
    (time_us, [b"99999999999", b"999999"], 99_999_999_999_999_999),
]
REFUSALS: list[tuple[Callable[[Any], object], object, str, str]] = [
    (integer, b"7", "protocol", "expected an integer, got bytes"),
    (integer, True, "protocol", "expected an integer, got bool"),
    (array, b"a", "protocol", "expected an array, got bytes"),
    (names, [b"a", 1], "protocol", "expected a byte string, got int"),
    (text, 1, "protocol", "expected a byte string, got int"),
    (counter, b"many", "bad_value", "b'many' is not a decimal integer"),
    (decimal, b"", "bad_value", "b'' is not a decimal integer"),
    (decimal, b"1-", "bad_value", "b'1-' is not a decimal integer"),
    (decimal, b"--1", "bad_value", "b'--1' is not a decimal integer"),
    (decimal, b"1" * 20, "bad_value", f"{b'1' * 20!r} is not a decimal integer"),
    (decimal, b"x" * 50, "bad_value", f"{b'x' * 40!r} is not a decimal integer"),
    (scored, [b"a"], "protocol", "a member without a score"),
    (scored, [b"a", b"x"], "protocol", "could not convert string to float: b'x'"),
    (time_us, [b"1", b"x"], "protocol", "expected seconds and microseconds, got list"),
    (time_us, [b"x", b"1"], "protocol", "expected seconds and microseconds, got list"),
    (time_us, [b"1" * 12, b"1"], "protocol", "expected seconds and microseconds, got list"),
    (time_us, [b"1", b"1" * 7], "protocol", "expected seconds and microseconds, got list"),
    (time_us, [b"1"], "protocol", "expected seconds and microseconds, got list"),
    (time_us, None, "protocol", "expected seconds and microseconds, got NoneType"),
]


@pytest.mark.parametrize(("parse", "reply", "value"), TAKEN)
def test_a_reply_of_the_expected_form_is_its_value(
    parse: Callable[[Any], object], reply: object, value: object
) -> None:
    assert parse(reply) == value


@pytest.mark.parametrize(("parse", "reply", "reason", "words"), REFUSALS)
def test_any_other_reply_is_an_error_that_says_what_came(
    parse: Callable[[Any], object], reply: object, reason: str, words: str
) -> None:
    with pytest.raises(ReadError) as refused:
        parse(reply)
    assert (refused.value.reason, str(refused.value)) == (reason, words)


@pytest.mark.parametrize("parse", [integer, array, names, text, counter, counted, scored, time_us])
def test_redis_own_error_keeps_its_words_and_has_its_reason(parse: Callable[[Any], object]) -> None:
    with pytest.raises(ReadError) as refused:
        parse(REFUSED)
    assert (refused.value.reason, str(refused.value)) == ("wrong_type", str(REFUSED))
    assert unexpected(REFUSED, "anything").reason == "wrong_type"


def test_a_field_that_cannot_be_read_is_none_and_counted_by_its_reason() -> None:
    failures: Counter[str] = Counter()
    fields = Fields(failures)
    assert [fields(integer, reply) for reply in (1, b"1", REFUSED, REFUSED)] == [1, None, None, None]
    assert [fields.integer(reply) for reply in (2, b"2", REFUSED)] == [2, None, None]
    assert failures == {"protocol": 2, "wrong_type": 3}


def test_a_counter_is_read_up_to_nineteen_digits() -> None:
    failures: Counter[str] = Counter()
    values = [b"0", b"12", b"-3", b"9" * 18, b"9" * 19, b"9" * 20, b"x", b""]
    assert [Fields(failures).counter(value) for value in values] == [
        0, 12, -3, int("9" * 18), int("9" * 19), None, None, None,
    ]  # fmt: skip
    assert failures == {"bad_value": 3}


def test_the_first_score_is_that_of_the_first_member_or_what_stands_for_none() -> None:
    failures: Counter[str] = Counter()
    fields = Fields(failures)
    assert fields.first_score([], 5.5) == 5.5
    assert fields.first_score([b"a", b"17"], 5.5) == 17.0
    assert fields.first_score([b"a", b"-1.5"], 5.5) == -1.5
    assert fields.first_score([b"a", b"17", b"b", b"18"], 5.5) == 17.0
    assert failures == {}
    unreadable = ([b"a"], [b"a", b"x"], [b"a", 17], None, REFUSED)
    assert [fields.first_score(reply, 5.5) for reply in unreadable] == [None] * 5
    assert failures == {"protocol": 4, "wrong_type": 1}


def test_what_breaks_while_a_reply_is_taken_apart_is_a_bad_value_that_says_of_what() -> None:
    with pytest.raises(ReadError) as broken, taking_apart("the table"):
        [][1]
    assert broken.value.reason == "bad_value"
    assert str(broken.value) == "the table cannot be read: IndexError: list index out of range"
    with pytest.raises(ReadError) as long, taking_apart("x" * 500):
        int("many")
    assert str(long.value) == "x" * 300
