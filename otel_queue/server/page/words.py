"""Numbers, durations and moments in words, always with their unit."""

import math
from datetime import UTC, datetime
from typing import Final

from otel_queue.server.page.html import Html, element, together

UNKNOWN: Final = element("span", "unknown", class_="unknown")
_GROUPING: Final = "\u2009"  # a thin space: in some languages a comma or a full stop would be a decimal sign


def count(value: float | None) -> Html:
    """A number of things: "12 345", "1.20 million"; nothing is lost below ten million."""
    if value is None or math.isnan(value):
        return UNKNOWN
    if value >= 1e7:
        return together(f"{value / 1e6:.1f} million")
    return together(f"{value:,.0f}".replace(",", _GROUPING))


def rate(per_second: float | None) -> Html:
    """Things per second, and never per anything else: the numbers of a column are to be compared."""
    return UNKNOWN if per_second is None else together(f"{figure(per_second)} /s")


def figure(value: float) -> str:
    """A number of any size in two digits or more: "0.0034", "1.2", "12", "12 345"."""
    return f"{value:.2g}" if value < 9.5 else count(value)


def share(part: float, whole: float) -> Html:
    """A percentage; whatever is not all or nothing never reads "100 %" or "0 %"."""
    if not whole:
        return UNKNOWN
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return together("under 0.1 %")
    if 99.9 < percent < 100:
        return together("over 99.9 %")
    return together(f"{percent:.1f} %")


def seconds(value: float | None) -> Html:
    """How long something takes or lasts."""
    return UNKNOWN if value is None else together(duration(value))


def duration(seconds: float) -> str:
    """The two largest units: "3 d 4 h", "5 min 6 s", "7.1 s", "12 ms". A clock that went back shows as "0 s"."""
    if seconds <= 0:
        return "0 s"
    if seconds < 0.9995:
        return f"{seconds * 1000:.0f} ms" if seconds >= 0.001 else "under 1 ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"


def moment(time: float, now: float) -> Html:
    """A Unix time as its age, with the time in UTC beside it."""
    stamp = datetime.fromtimestamp(time, UTC)
    text = stamp.strftime("%H:%M:%S" if abs(now - time) < 43_200 else "%Y-%m-%d %H:%M")
    iso = stamp.isoformat(timespec="seconds")
    return together(f"{duration(now - time)} ago, ", element("time", f"{text} UTC", datetime=iso))
