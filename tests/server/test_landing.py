from otel_queue.server.exporter import Status
from otel_queue.server.landing import landing_page
from tests.server.client import fetch
from tests.server.conftest import Serve
from tests.server.fake_exporter import FakeExporter, lane


def test_the_page_shows_version_uptime_lanes_and_links(serve: Serve, exporter: FakeExporter) -> None:
    exporter.process = Status(
        "1.2.3",
        1000.0,
        (
            lane(),
            lane(name="ledger", source="redis://ledger:6379/1", up=False, age_seconds=75.0, last_error="refused"),
            lane(name="postgres", up=None, age_seconds=None),
        ),
        "OTLP http/protobuf to http://collector:4318",
    )

    reply = fetch(serve(clock=lambda: 1000.0 + 93_784.0).port, "/")

    page = reply.body.decode()
    assert (reply.status, reply.headers["Content-Type"]) == (200, "text/html; charset=utf-8")
    assert "version 1.2.3, up for 1 d 2 h" in page
    assert "<td>queue</td><td>redis://127.0.0.1:6379/0</td><td>up</td><td>1.5 s</td><td></td>" in page
    assert "<td>redis://ledger:6379/1</td><td>down</td><td>1 min 15 s</td><td>refused</td>" in page
    assert "<td>not read yet</td><td></td><td></td>" in page
    assert "OTLP push: OTLP http/protobuf to http://collector:4318" in page
    assert all(f'href="{path}"' in page for path in ("/metrics", "/healthz", "/readyz"))
    assert "<script" not in page


def test_everything_that_comes_from_outside_is_escaped() -> None:
    evil = "<script>alert('x')</script>\"&"
    lanes = (lane(name=evil, source=evil, last_error=evil),)

    page = landing_page(Status(evil, 0.0, lanes, evil), now=1.0).decode()

    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(&#x27;x&#x27;)&lt;/script&gt;&quot;&amp;") == 5


def test_text_that_is_no_unicode_does_not_break_the_page() -> None:
    page = landing_page(Status("1", 0.0, (lane(last_error="bad \udcff byte"),), "off"), now=0.0)

    assert b"bad ? byte" in page


def test_without_lanes_the_page_says_so() -> None:
    assert b"no lane is configured" in landing_page(Status("1", 0.0, (), "off"), now=0.0)


def test_a_clock_that_went_back_shows_no_negative_time() -> None:
    assert b"up for 0.0 s" in landing_page(Status("1", 500.0, (), "off"), now=400.0)


def test_hours_are_shown_with_minutes() -> None:
    assert b"up for 3 h 25 min" in landing_page(Status("1", 0.0, (), "off"), now=12_345.0)
