import pytest

from otel_queue.server.page.words import UNKNOWN, count, duration, moment, rate, seconds, share


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0"),
        (999.0, "999"),
        (1234.0, "1\u2009234"),
        (9_876_543.0, "9\u2009876\u2009543"),
        (12_345_678.0, "12.3 million"),
    ],
)
def test_counts_are_exact_until_nobody_reads_them(value: float, text: str) -> None:
    assert count(value) == text


@pytest.mark.parametrize(
    ("per_second", "text"),
    [
        (0.0, "0 /s"),
        (0.01234, "0.012 /s"),
        (0.25, "0.25 /s"),
        (9.7, "10 /s"),
        (12.3, "12 /s"),
        (1234.5, "1\u2009234 /s"),
    ],
)
def test_rates_are_all_per_second_with_two_digits_or_more(per_second: float, text: str) -> None:
    assert rate(per_second) == text


@pytest.mark.parametrize(
    ("time", "text"),
    [
        (-5.0, "0 s"),
        (0.0, "0 s"),
        (0.0004, "under 1 ms"),
        (0.012, "12 ms"),
        (0.9996, "1.0 s"),
        (7.06, "7.1 s"),
        (59.94, "59.9 s"),
        (59.96, "1 min 0 s"),
        (306.0, "5 min 6 s"),
        (3599.7, "1 h 0 min"),
        (12_345.0, "3 h 25 min"),
        (93_784.0, "1 d 2 h"),
    ],
)
def test_durations_have_two_units_and_never_sixty_of_one(time: float, text: str) -> None:
    assert duration(time) == text


@pytest.mark.parametrize(
    ("part", "whole", "text"),
    [
        (0.0, 8.0, "0.0 %"),
        (1.0, 8.0, "12.5 %"),
        (8.0, 8.0, "100.0 %"),
        (1.0, 5000.0, "under 0.1 %"),
        (4999.0, 5000.0, "over 99.9 %"),
    ],
)
def test_a_share_reads_nothing_or_all_only_where_it_is(part: float, whole: float, text: str) -> None:
    assert share(part, whole) == text


def test_what_is_not_known_has_no_number() -> None:
    assert {count(None), count(float("nan")), rate(None), seconds(None), share(0.0, 0.0)} == {UNKNOWN}


def test_a_moment_long_ago_has_its_day() -> None:
    assert moment(0.0, 30.0) == '30.0 s ago, <time datetime="1970-01-01T00:00:00+00:00">00:00:00 UTC</time>'
    assert "1970-01-01 00:00 UTC" in moment(0.0, 90_000.0)
