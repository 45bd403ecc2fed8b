import gzip
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_queue.server.page import status_page
from otel_queue.server.page.html import Html, element, together
from otel_queue.status import LaneState, QueueOverview, RecentError, Status
from tests.server.client import fetch
from tests.server.conftest import Serve
from tests.server.fake_exporter import FakeExporter, lane
from tests.server.full_status import NOW, full_status

EVIL = "<script>alert('x')</script>\"& </style><img src=x onerror=alert(1)>"


class Outline(HTMLParser):
    """The elements of a page with the names of their attributes, and its text."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.values: list[str | None] = []
        self.text: list[str] = []
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))
        self.values += [value for _, value in attrs]

    def handle_data(self, data: str) -> None:
        if self.cdata_elem is None:  # neither style nor script
            self.text.append(data)


def words(page: bytes) -> str:
    """What can be read on the page, with single spaces."""
    return re.sub(r"[ \n]+", " ", " ".join(Outline(page).text))


def page_of(**changes: object) -> str:
    return words(status_page(replace(full_status(), **changes), NOW))  # type: ignore[arg-type]


def test_the_page_shows_version_uptime_push_and_links(serve: Serve, exporter: FakeExporter) -> None:
    exporter.process = Status("1.2.3", 1000.0, (lane(),), "OTLP http/protobuf")

    reply = fetch(serve(clock=lambda: 1000.0 + 93_784.0).port, "/")

    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert reply.headers["Cache-Control"] == "no-store"
    assert "version 1.2.3, up for 1 d 2 h, as of 02:19:44 UTC ; OTLP push: OTLP http/protobuf" in words(reply.body)
    assert all(f'href="{path}"'.encode() in reply.body for path in ("/metrics", "/healthz", "/readyz"))


def test_a_page_that_somebody_opens_is_made_fresh_and_waits_no_longer_than_a_second(
    serve: Serve, exporter: FakeExporter
) -> None:
    fetch(serve().port, "/")

    assert exporter.freshened == [1.0]
    assert exporter.asked == []


def test_the_page_is_compressed_for_those_who_take_it(serve: Serve) -> None:
    port = serve(clock=lambda: NOW).port

    plain = fetch(port, "/")
    small = fetch(port, "/", headers={"Accept-Encoding": "gzip"})

    assert (plain.headers["Content-Encoding"], small.headers["Content-Encoding"]) == (None, "gzip")
    assert gzip.decompress(small.body) == plain.body
    assert plain.headers["Vary"] == small.headers["Vary"] == "Accept-Encoding"


def test_head_tells_the_length_and_no_more(serve: Serve) -> None:
    port = serve(clock=lambda: NOW).port

    reply = fetch(port, "/", method="HEAD")

    assert reply.body == b""
    assert reply.headers["Content-Length"] == str(len(fetch(port, "/").body))


def test_an_exporter_that_fails_makes_an_error_and_no_half_page(serve: Serve, exporter: FakeExporter) -> None:
    exporter.error = RuntimeError("secret detail")

    reply = fetch(serve().port, "/")

    assert (reply.status, reply.body) == (500, b"the exporter failed; its log says why\n")


def test_the_policy_allows_this_style_and_this_script_and_nothing_else(serve: Serve) -> None:
    reply = fetch(serve().port, "/")

    policy = reply.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not re.search(rb"\s(?:on\w+|style)=|(?:src|href)=\"(?!/|data:,)", reply.body)


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), min_size=1, max_size=40))
def test_no_text_from_outside_changes_the_structure_of_the_page(text: str) -> None:
    page = Outline(status_page(full_status(text), NOW))

    assert page.elements == Outline(status_page(full_status("x"), NOW)).elements
    assert f"lane {text}: {text}" in "".join(page.text)


def test_what_looks_like_markup_is_text_on_the_page_in_every_place() -> None:
    harmless, evil = (status_page(full_status(text), NOW) for text in ("harmless", EVIL))

    assert Outline(evil).elements == Outline(harmless).elements
    shown = Outline(evil)
    everything = "".join([*shown.text, *filter(None, shown.values)])
    assert everything.count(EVIL) == harmless.count(b"harmless") > 20


def test_text_that_is_no_unicode_does_not_break_the_page() -> None:
    page = status_page(Status("1", 0.0, (lane(up=False, last_error="bad \udcff byte"),), "off"), now=0.0)

    assert b"bad ? byte" in page


def test_what_is_not_known_is_unknown_and_never_zero() -> None:
    shown = page_of(queues=(QueueOverview("q"),), other_queues=(), queue_count=1)

    queue = shown.partition("attempts last 15 min")[2].partition("Size counts")[0].split()
    assert queue == ["q", *["unknown"] * 9, *["no", "values", "yet"] * 2]


def test_a_queue_that_nobody_serves_and_expired_leases_and_a_pause_are_said_at_the_top() -> None:
    shown = page_of(queues=(QueueOverview("q", pending=1234.0, paused=True, servers=0.0, lease_expired=1.0),))

    top = shown.partition("Queues (")[0]
    assert "no server tasks are pending and no live server serves them: q (1\u2009234 pending)" in top
    assert "lease expired the servers of active tasks are gone or stuck: q (1 expired)" in top
    assert "paused nothing is taken from: q (1\u2009234 pending)" in top


def test_a_queue_without_tasks_needs_no_server() -> None:
    status = Status("1", NOW, (lane(),), "off", (QueueOverview("q", pending=0.0, servers=0.0),), queue_count=1)

    assert "all well Every lane is read, and nothing needs attention." in words(status_page(status, NOW))


def test_a_fallback_an_absent_metric_and_a_verdict_are_said_at_the_top() -> None:
    top = page_of(lanes=(lane(),)).partition("Queues (")[0]

    assert "fallback x comes from x!, not x" in top
    assert "absent absent_metric: ledger does not supply it" in top
    assert "differs x and its shadow are out of tolerance" in top


@pytest.mark.parametrize(("queue_count", "rest"), [(7, ", and 2 more"), (900, ", and at least 2 more")])
def test_many_queues_with_one_problem_are_one_line_that_counts_them(queue_count: int, rest: str) -> None:
    paused = tuple(QueueOverview(f"q{number}", paused=True, pending=1.0) for number in range(7))
    status = Status("1", NOW, (lane(),), "off", paused, queue_count=queue_count)

    top = words(status_page(status, NOW)).partition("Queues (")[0]

    assert top.count("nothing is taken from") == 1
    assert f", q4 (1 pending){rest} " in top


def test_many_problems_are_counted_and_not_all_listed() -> None:
    down = tuple(lane(name=f"lane{number}", up=False, last_error="refused") for number in range(20))

    top = words(status_page(Status("1", NOW, down, "off"), NOW)).partition("Queues")[0]

    assert top.count("refused") == 12
    assert "and 8 more; see below" in top


@pytest.mark.parametrize(
    ("state", "words_on_page"),
    [
        (lane(), "queue up redis://127.0.0.1:6379/0 1.5 s 12 ms none"),
        (
            lane(up=False, age_seconds=75.0, last_error="refused"),
            "queue down redis://127.0.0.1:6379/0 1 min 15 s ageing",
        ),
        (lane(up=False, stale=True, last_error="refused"), "1.5 s stale 12 ms refused"),
        (lane(last_error="refused"), "12 ms over: refused"),
        (
            lane(up=None, age_seconds=None, duration_seconds=None),
            "not read yet redis://127.0.0.1:6379/0 never read unknown",
        ),
    ],
)
def test_a_lane_has_its_state_and_its_age_in_words(state: LaneState, words_on_page: str) -> None:
    assert words_on_page in words(status_page(Status("1", NOW, (state,), "off"), NOW))


def test_a_lane_that_is_down_is_said_at_the_top_with_its_reason() -> None:
    status = Status("1", NOW, (lane(up=False, last_error="connection refused"),), "off")

    assert "Needs attention down lane queue: connection refused" in words(status_page(status, NOW))


def test_a_lane_that_nobody_has_read_for_long_is_stale_and_not_well() -> None:
    status = Status("1", NOW, (lane(stale=True, age_seconds=7200.0),), "off")

    assert "stale lane queue was last read 2 h 0 min ago" in words(status_page(status, NOW))


def test_before_the_first_reading_the_page_claims_nothing() -> None:
    shown = words(status_page(Status("1", NOW, (lane(up=None),), "off"), NOW))

    assert "starting Not every lane has been read yet." in shown
    assert "No queue has been read yet." in shown
    assert "all well" not in shown


def test_an_empty_redis_is_not_taken_for_one_that_was_not_read() -> None:
    assert "There is no queue in this Redis." in words(status_page(Status("1", NOW, (lane(),), "off"), NOW))


def test_errors_have_their_lane_reason_words_times_and_count() -> None:
    error = RecentError("ledger", "timeout", "no answer within 2 s", NOW - 90.0, NOW - 4.0, 3)

    shown = page_of(errors=(error,))

    assert (
        "ledger timeout no answer within 2 s 4.0 s ago, 22:13:16 UTC 1 min 30 s ago, 22:11:50 UTC 3"
        in shown.partition("Recent errors")[2]
    )


def test_the_domain_shows_names_and_says_how_many_more_there_are() -> None:
    shown = page_of().partition("Domain")[2]

    assert "Busiest projects (2 of 12)" in shown
    assert "x x 10 3 100 1 min 15 s x 0 0 1 unknown" in shown
    assert "Endpoints with the oldest delivery in processing (1 of 30)" in shown
    assert "failed in the last 7 min 0 s attempts failed attempts of all attempts x x x 2 9 22.5 %" in shown
    assert "absent_metric nowhere now; ledger if it can be had none absent" in shown


def test_verdicts_are_shown_only_where_something_is_compared() -> None:
    assert "x out of tolerance 3.5 2 in x 9 other_seconds not compared yet unknown unknown unknown" in page_of()
    assert "Shadow" not in page_of(shadow=())


def test_without_lanes_the_page_says_so() -> None:
    assert b"No lane is configured" in status_page(Status("1", 0.0, (), "off"), now=0.0)


def test_a_clock_that_went_back_shows_no_negative_time() -> None:
    assert b"up for 0 s" in status_page(Status("1", 500.0, (), "off"), now=400.0)


def test_elements_escape_what_is_not_markup_and_a_sum_of_both_is_no_markup() -> None:
    assert element("p", "<b>", element("i", "&"), title='"') == '<p title="&quot;">&lt;b&gt;<i>&amp;</i></p>'
    assert together(Html("<i>") + "<b>") == "&lt;i&gt;&lt;b&gt;"
    assert element("p", hidden=True, id=None, data_label="x", class_="y") == '<p hidden data-label="x" class="y"></p>'
