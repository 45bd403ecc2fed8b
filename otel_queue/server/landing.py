"""The landing page: what this process reads, how fresh it is, and where to look."""

from html import escape

from otel_queue.server.exporter import LaneStatus, Status

_STYLE = (
    "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem}"
    "table{border-collapse:collapse}th,td{text-align:left;padding:.3rem .8rem;border-bottom:1px solid #ccc;"
    "vertical-align:top;overflow-wrap:anywhere}"
)


def landing_page(status: Status, now: float) -> bytes:
    """The page as UTF-8 HTML; `now` is in Unix seconds. Everything that comes from `status` is escaped."""
    rows = "".join(_row(lane) for lane in status.lanes)
    lanes = (
        "<table><thead><tr><th>lane</th><th>source</th><th>state</th><th>age</th><th>last error</th></tr>"
        f"</thead><tbody>{rows}</tbody></table>"
        if rows
        else "<p>no lane is configured</p>"
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>otel-queue</title>'
        f"<style>{_STYLE}</style></head><body>"
        "<h1>otel-queue</h1>"
        f"<p>version {escape(status.version)}, up for {_duration(now - status.started_at)}</p>"
        f"{lanes}"
        f"<p>OTLP push: {escape(status.push)}</p>"
        '<p><a href="/metrics">/metrics</a> <a href="/healthz">/healthz</a> <a href="/readyz">/readyz</a></p>'
        "</body></html>\n"
    ).encode("utf-8", "replace")


def _row(lane: LaneStatus) -> str:
    state = {None: "not read yet", True: "up", False: "down"}[lane.up]
    age = "" if lane.age_seconds is None else _duration(lane.age_seconds)
    cells = (lane.name, lane.source, state, age, lane.last_error or "")
    return "<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in cells) + "</tr>"


def _duration(seconds: float) -> str:
    """The two largest units: "3 d 4 h", "5 min 6 s", "7.1 s". A clock that went back shows as zero."""
    seconds = max(seconds, 0.0)
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} d {hours} h"
