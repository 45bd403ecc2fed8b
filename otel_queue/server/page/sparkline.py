"""A small chart as inline SVG, drawn on the server."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from statistics import median
from typing import Final

from otel_queue.server.page.html import Html, element
from otel_queue.server.page.words import figure

WINDOW_SECONDS: Final = 900.0
_WIDTH, _HEIGHT, _EDGE = 160, 30, 2
# A hole of more than this many usual steps is shown as a hole: nobody knows what was in it.
_HOLE_STEPS: Final = 3.0

Series = Sequence[tuple[float, float | None]]


def sparkline(title: str, unit: str, series: Series, now: float, *, second: Series = ()) -> Html:
    """The last quarter of an hour up to `now`, with the least, largest and newest value beneath.

    Points are Unix times and values; an unknown one is a hole. `second` is drawn over it on the same scale, as what
    went wrong. A screen reader is told the title and the three values. Without a known value there is no chart.
    """
    known = [value for _, value in series if value is not None]
    if not known:
        return element("span", "no values yet", class_="unknown")
    least, largest, newest = min(known), max(known), series[-1][1]
    said = (
        f"min {figure(least)}, max {figure(largest)}, now {'unknown' if newest is None else figure(newest)}\u00a0{unit}"
    )
    top = max((value for _, value in (*series, *second) if value is not None), default=0.0) or 1.0
    lines = (
        element("polyline", points=points, class_=name)
        for name, each in (("line", series), ("line wrong", second))
        for points in _lines(each, now, top)
    )
    picture = element(
        "svg",
        element("title", title),
        element("desc", f"last {WINDOW_SECONDS / 60:.0f} minutes, from 0 to {figure(top)} {unit}: {said}"),
        element("path", d=f"M0 {_HEIGHT - 0.5}H{_WIDTH}", class_="axis"),
        *lines,
        viewBox=f"0 0 {_WIDTH} {_HEIGHT}",
        role="img",
        preserveAspectRatio="none",
    )
    # The picture's own words say the same to a screen reader.
    return element("figure", picture, element("figcaption", said, aria_hidden="true"))


def _lines(series: Series, now: float, top: float) -> Iterator[str]:
    """The points of each unbroken stretch in the picture's coordinates; a single point becomes a short line."""
    steps = [later - earlier for (earlier, _), (later, _) in pairwise(series)]
    hole = _HOLE_STEPS * median(steps) if steps else 0.0
    stretch: list[str] = []
    before = None
    for moment, value in series:
        if stretch and (value is None or (before is not None and moment - before > hole)):
            yield _joined(stretch)
            stretch = []
        before = moment
        across = _WIDTH * (1 - (now - moment) / WINDOW_SECONDS)
        if value is not None and 0 <= across <= _WIDTH + 1:
            up = _HEIGHT - _EDGE - (_HEIGHT - 2 * _EDGE) * value / top
            stretch.append(f"{min(across, _WIDTH):.1f},{up:.1f}")
    if stretch:
        yield _joined(stretch)


def _joined(stretch: list[str]) -> str:
    if len(stretch) > 1:
        return " ".join(stretch)
    across, _, up = stretch[0].partition(",")
    return f"{max(float(across) - 1.5, 0):.1f},{up} {across},{up}"
