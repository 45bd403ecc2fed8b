"""The whole document: head, style, script and the sections."""

from base64 import b64encode
from datetime import UTC, datetime
from hashlib import sha256
from importlib.resources import files
from typing import Final

from otel_queue.server.page.attention import attention_section
from otel_queue.server.page.domain import domain_section, shadow_section
from otel_queue.server.page.html import Html, element, literal, together
from otel_queue.server.page.lanes import errors_section, lanes_section
from otel_queue.server.page.queues import queues_section
from otel_queue.server.page.words import duration
from otel_queue.status import Status

REFRESH_SECONDS: Final = 5
_WITHOUT_SCRIPT_SECONDS: Final = 10


def _resource(name: str) -> str:
    return files(__package__).joinpath(name).read_text("utf-8")


def _hash(text: str) -> str:
    return f"'sha256-{b64encode(sha256(text.encode()).digest()).decode()}'"


_STYLE: Final = _resource("page.css")
_SCRIPT: Final = _resource("page.js")
_ICON: Final = "data:,"  # none, and no request for one

# Nothing from elsewhere, and of what is here only these two texts: markup that got in would neither run nor dress.
CONTENT_SECURITY_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        f"style-src {_hash(_STYLE)}",
        f"script-src {_hash(_SCRIPT)}",
        "connect-src 'self'",
        "img-src data:",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)


def status_page(status: Status, now: float) -> bytes:
    """The page as UTF-8 HTML; `now` is in Unix seconds. Everything that comes from `status` is escaped."""
    html = element("html", _head(), element("body", *_body(status, now)), lang="en")
    return f"<!doctype html>\n{html}\n".encode("utf-8", "replace")


def _head() -> Html:
    reload = element("meta", http_equiv="refresh", content=str(_WITHOUT_SCRIPT_SECONDS))
    return element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", "otel-queue"),
        element("link", rel="icon", href=_ICON),
        element("style", literal(_STYLE)),
        element("noscript", reload),
    )


def _body(status: Status, now: float) -> tuple[Html, ...]:
    as_of = datetime.fromtimestamp(now, UTC)
    clock = element("time", f"{as_of:%H:%M:%S} UTC", datetime=as_of.isoformat(timespec="seconds"))
    links = (element("a", path, href=path) for path in ("/metrics", "/healthz", "/readyz"))
    header = element(
        "header",
        element("h1", "otel-queue"),
        element(
            "p",
            f"version {status.version}, up for {duration(now - status.started_at)}, as of ",
            clock,
            f"; OTLP push: {status.push}",
        ),
        element("nav", *(together(link, " ") for link in links), aria_label="other paths"),
    )
    main = element(
        "main",
        header,
        attention_section(status),
        queues_section(status, now),
        lanes_section(status.lanes),
        domain_section(status.domain),
        shadow_section(status.shadow),
        errors_section(status, now),
        data_refresh_seconds=REFRESH_SECONDS,
    )
    return element("p", id="refresh", role="status", hidden=True), main, element("script", literal(_SCRIPT))
