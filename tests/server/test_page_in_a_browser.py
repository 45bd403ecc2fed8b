"""The page in a real Chromium: it runs its script under its own policy, refreshes, and fits a phone."""

import struct
import zlib
from collections.abc import Iterator

import pytest

from otel_queue.server.auth import BasicAuth
from tests.server.browser import Page, chromium
from tests.server.conftest import Serve
from tests.server.fake_exporter import FakeExporter
from tests.server.full_status import NOW, full_status
from tests.server.test_auth import HASHED, PASSWORD
from tests.server.test_page import EVIL
from tests.servers.process import wait_until

LONG = "a-name-that-goes-on-and-on-" * 9


@pytest.fixture(scope="module")
def browser() -> Iterator[Page]:
    with chromium() as page:
        yield page


@pytest.fixture
def page(browser: Page) -> Iterator[Page]:
    """The browser's tab as it is at first; nothing may complain while a test has it."""
    browser.resize(1280, 900)
    browser.call("Emulation.setScriptExecutionDisabled", value=False)
    browser.call("Emulation.setEmulatedMedia", features=[])
    browser.call("Network.enable")
    browser.call("Network.setExtraHTTPHeaders", headers={})
    browser.call(
        "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
    )
    browser.open("about:blank")
    browser.complaints.clear()
    yield browser
    assert browser.complaints == []


def shown(page: Page, selector: str) -> str:
    return str(page.evaluate(f"document.querySelector({selector!r}).innerText"))


def test_the_page_is_drawn_and_nothing_complains(serve: Serve, exporter: FakeExporter, page: Page) -> None:
    exporter.process = full_status("Payments")
    page.open(serve(clock=lambda: NOW).url)

    assert page.evaluate("document.title") == "otel-queue"
    assert "Payments" in shown(page, "#queues tbody th")
    assert page.evaluate("document.querySelector('#queues svg').getBoundingClientRect().width") > 120
    assert page.evaluate("getComputedStyle(document.querySelector('.badge.bad')).color") == "rgb(179, 38, 30)"


def test_the_content_is_swapped_and_the_place_and_what_is_unfolded_are_kept(
    serve: Serve, exporter: FakeExporter, page: Page
) -> None:
    exporter.process = full_status("Payments", pending=7.0)
    page.resize(600, 300)
    page.open(serve(clock=lambda: NOW).url)
    page.evaluate("document.querySelector('details').open = true; window.unchanged = true; scrollTo(0, 400)")
    assert "7" in shown(page, "#queues tbody td.number")

    exporter.process = full_status("Payments", pending=4321.0)
    wait_until(lambda: "4\u2009321" in shown(page, "#queues tbody td.number"))

    assert page.evaluate("[window.unchanged, document.querySelector('details').open, scrollY]") == [True, True, 400]


def test_a_page_whose_exporter_is_gone_says_so_and_takes_it_back_when_it_returns(
    serve: Serve, exporter: FakeExporter, page: Page
) -> None:
    exporter.process = full_status("Payments")
    page.open(serve(clock=lambda: NOW).url)
    assert page.evaluate("document.getElementById('refresh').hidden") is True

    exporter.error = RuntimeError("broken")
    wait_until(lambda: page.evaluate("document.getElementById('refresh').hidden") is False)
    notice = shown(page, "#refresh")
    exporter.error = None
    wait_until(lambda: page.evaluate("document.getElementById('refresh').hidden") is True)

    assert notice.startswith("This page could not be refreshed since ")
    assert notice.endswith(": the exporter answers 500. It shows what was known then.")
    # The browser's own line about a failed request; the page is innocent of it.
    assert all("status of 500" in complaint for complaint in page.complaints)
    page.complaints.clear()


def test_marked_text_is_not_taken_away(serve: Serve, exporter: FakeExporter, page: Page) -> None:
    exporter.process = full_status("Payments")
    page.open(serve(clock=lambda: NOW).url)
    page.evaluate(
        "getSelection().selectAllChildren(document.querySelector('#lanes')); window.marked = 0;"
        "window.asked = 0; const original = setTimeout;"
        "window.setTimeout = (run, after) => { window.asked += 1; return original(run, 10) }"
    )
    exporter.process = full_status("Changed")
    wait_until(lambda: page.evaluate("window.asked") > 5)

    assert page.evaluate("getSelection().toString().includes('Payments')") is True


def test_without_scripts_the_page_is_whole_and_reloads_itself(serve: Serve, exporter: FakeExporter, page: Page) -> None:
    exporter.process = full_status("Payments")
    page.call("Emulation.setScriptExecutionDisabled", value=True)
    page.open(serve(clock=lambda: NOW).url)

    assert "Payments" in shown(page, "#queues tbody th")
    assert page.evaluate("document.querySelector('noscript meta[http-equiv=refresh]').content") == "10"
    exporter.process = full_status("Changed")
    wait_until(lambda: "Changed" in shown(page, "#queues tbody th"))


@pytest.mark.parametrize("width", [320, 375, 768, 1088, 1089, 1280])
@pytest.mark.parametrize("text", ["Payments", LONG, "\u202e" + "\u0639" * 80])
def test_nothing_has_to_be_scrolled_sideways(
    serve: Serve, exporter: FakeExporter, page: Page, width: int, text: str
) -> None:
    exporter.process = full_status(text)
    page.resize(width, 812, mobile=width < 500)
    page.open(serve(clock=lambda: NOW).url)
    page.evaluate("document.querySelector('details').open = true")

    assert page.evaluate("[document.documentElement.scrollWidth, innerWidth]") == [width, width]


def test_what_looks_like_markup_does_not_run(serve: Serve, exporter: FakeExporter, page: Page) -> None:
    exporter.process = full_status(EVIL)
    page.open(serve(clock=lambda: NOW).url)

    assert page.evaluate("[document.scripts.length, document.images.length]") == [1, 0]
    assert shown(page, "#queues tbody th .name") == EVIL.replace("  ", " ")


def test_a_script_that_got_in_would_be_stopped_by_the_policy(serve: Serve, exporter: FakeExporter, page: Page) -> None:
    page.open(serve().url)
    page.evaluate(
        "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.ran = true'}))"
    )

    assert page.evaluate("window.ran === undefined") is True
    assert any("Content Security Policy" in complaint for complaint in page.complaints)
    page.complaints.clear()


def test_behind_basic_auth_the_refresh_carries_the_credentials(
    serve: Serve, exporter: FakeExporter, page: Page
) -> None:
    exporter.process = full_status("Payments")
    listener = serve(clock=lambda: NOW, auth=BasicAuth({"prometheus": HASHED}))
    page.open(f"http://prometheus:{PASSWORD.replace(' ', '%20').replace(':', '%3A')}@127.0.0.1:{listener.port}/")
    assert "Payments" in shown(page, "#queues tbody th")

    exporter.process = full_status("Changed")
    wait_until(lambda: "Changed" in shown(page, "#queues tbody th"))


def test_in_the_dark_the_page_is_dark(serve: Serve, exporter: FakeExporter, page: Page) -> None:
    page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    page.open(serve().url)

    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(20, 24, 28)"


def test_a_picture_of_the_page_is_not_blank(serve: Serve, exporter: FakeExporter, page: Page) -> None:
    exporter.process = full_status("Payments")
    page.resize(400, 300)
    page.open(serve(clock=lambda: NOW).url)

    width, height, rows = pixels(page.screenshot())

    assert (width, height) == (400, 300)
    blank = [row for row in rows if len(set(row)) == 1]
    assert len(blank) < height / 2
    assert len({pixel for row in rows for pixel in row}) > 50


def pixels(png: bytes) -> tuple[int, int, list[list[bytes]]]:
    """Width, height and the rows of an 8-bit RGB or RGBA picture."""
    data, position = bytearray(), 8
    while position < len(png):
        (length,) = struct.unpack(">I", png[position : position + 4])
        kind, body = png[position + 4 : position + 8], png[position + 8 : position + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", body[:10])
        elif kind == b"IDAT":
            data += body
        position += length + 12
    size = {2: 3, 6: 4}[colour]
    assert depth == 8
    raw, before, rows = zlib.decompress(data), bytearray(width * size), []
    for start in range(0, len(raw), width * size + 1):
        before = unfiltered(raw[start], raw[start + 1 : start + 1 + width * size], before, size)
        rows.append([bytes(before[index : index + size]) for index in range(0, len(before), size)])
    return width, height, rows


def unfiltered(kind: int, line: bytes, above: bytearray, size: int) -> bytearray:
    """One line of a PNG without its filter (PNG specification, 9.2)."""
    found = bytearray(line)
    for index in range(len(found)):
        left = found[index - size] if index >= size else 0
        corner = above[index - size] if index >= size else 0
        up = above[index]
        if kind == 4:
            guess = left + up - corner
            nearest = min((left, up, corner), key=lambda value: abs(guess - value))
        else:
            nearest = {0: 0, 1: left, 2: up, 3: (left + up) // 2}[kind]
        found[index] = (found[index] + nearest) & 0xFF
    return found
