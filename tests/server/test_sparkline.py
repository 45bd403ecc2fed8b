import re

from otel_queue.server.page.sparkline import WINDOW_SECONDS, Series, sparkline

NOW = 10_000.0


def lines(*series: Series, now: float = NOW) -> list[list[tuple[float, float]]]:
    """The lines drawn, each as points that run right and down from the upper left corner."""
    first, second = (*series, ())[:2]
    drawn = re.findall(r'<polyline points="([^"]*)"', sparkline("t", "tasks", first, now, second=second))
    return [[tuple(map(float, point.split(","))) for point in each.split()] for each in drawn]  # type: ignore[misc]


def test_the_newest_value_stands_at_the_right_and_the_largest_at_the_top() -> None:
    [line] = lines([(NOW - 450.0, 0.0), (NOW, 10.0)])

    assert line == [(80.0, 28.0), (160.0, 2.0)]


def test_what_is_said_is_the_least_the_largest_and_the_newest_with_their_unit() -> None:
    chart = sparkline("q: pending tasks", "tasks", [(NOW - 20.0, 12345.0), (NOW - 10.0, 0.25), (NOW, 3.0)], NOW)

    assert "<title>q: pending tasks</title>" in chart
    assert "from 0 to 12\u2009345 tasks: min 0.25, max 12\u2009345, now 3\u00a0tasks</desc>" in chart
    assert '<figcaption aria-hidden="true">min 0.25, max 12\u2009345, now 3\u00a0tasks</figcaption>' in chart


def test_an_unknown_value_is_a_hole_and_not_a_zero() -> None:
    drawn = lines([(NOW - 40.0, 5.0), (NOW - 30.0, 5.0), (NOW - 20.0, None), (NOW - 10.0, 5.0), (NOW, 5.0)])

    assert [len(line) for line in drawn] == [2, 2]
    assert all(down == 2.0 for line in drawn for _, down in line)


def test_a_newest_value_that_is_unknown_is_said_to_be() -> None:
    assert "now unknown\u00a0tasks" in sparkline("t", "tasks", [(NOW - 10.0, 1.0), (NOW, None)], NOW)


def test_a_time_in_which_nothing_was_read_is_a_hole() -> None:
    moments = [NOW - 800.0 + 10.0 * step for step in range(20)]
    drawn = lines([(moment, 1.0) for moment in [*moments, NOW - 10.0, NOW]])

    assert [len(line) for line in drawn] == [20, 2]


def test_what_is_older_than_the_window_is_not_drawn() -> None:
    [line] = lines([(NOW - WINDOW_SECONDS - 5.0, 1.0), (NOW - WINDOW_SECONDS, 1.0), (NOW, 1.0)])

    assert [across for across, _ in line] == [0.0, 160.0]


def test_a_single_value_is_seen() -> None:
    [[left, right]] = lines([(NOW, 4.0)])

    assert left[0] < right[0] == 160.0


def test_zeros_alone_lie_on_the_ground() -> None:
    [line] = lines([(NOW - 10.0, 0.0), (NOW, 0.0)])

    assert {down for _, down in line} == {28.0}


def test_the_second_line_has_the_same_scale() -> None:
    first, second = lines([(NOW - 10.0, 1.0), (NOW, 1.0)], [(NOW - 10.0, 2.0), (NOW, 2.0)])

    assert (first[0][1], second[0][1]) == (15.0, 2.0)


def test_without_a_known_value_there_is_no_chart() -> None:
    assert sparkline("t", "tasks", [(NOW, None)], NOW) == '<span class="unknown">no values yet</span>'
    assert "<svg" not in sparkline("t", "tasks", [], NOW)
