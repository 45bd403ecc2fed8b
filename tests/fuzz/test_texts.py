"""Texts from anywhere as labels, ids and parts of a page: kept within their rules, and carried as they are."""

from collections.abc import Sequence
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import strategies as st

from otel_queue import labels
from otel_queue.catalog import CATALOG
from otel_queue.ledger.identity import UNDATED, identify, text_of
from otel_queue.lifecycle import STATUSES, UNTOLD
from otel_queue.samples import Family
from otel_queue.server.page import status_page
from tests.export.ways_out import (
    CLASSIC,
    FORMATS,
    OPENMETRICS,
    metrics_of,
    own_text,
    parsed,
    pushed,
    stock_text,
    values_of,
)
from tests.fuzz.budget import EXAMPLES, TEXTS, counted, fuzzed, seeded
from tests.fuzz.mutation import mutate
from tests.fuzz.odd import any_number, any_text, unicode_text
from tests.ledger.ledgers import ulid
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, EVENT_BACKLOG, day_of, printable, three_digits, value_of
from tests.server.full_status import NOW, full_status

pytestmark = pytest.mark.timeout(900)

SIZE = "asynq_queue_size"


@fuzzed(EXAMPLES, text=any_text)
def test_labels_are_kept_as_the_rules_say(text: str) -> None:
    assert labels.clean(text) == printable(text)
    assert labels.plain(text) == value_of({"endpoint": text}, "endpoint")
    assert labels.source(text) == value_of({"source": text}, "source")
    assert labels.plain(UNTOLD) is labels.source(UNTOLD) is None
    assert labels.clean(labels.clean(text)) == labels.clean(text)
    labels.clean(text).encode()
    try:
        assert labels.status(text) in STATUSES
    except ValueError as error:
        assert text.lower() not in STATUSES
        str(error).encode()


@fuzzed(EXAMPLES, value=st.one_of(any_number, any_text, st.integers(0, 999).map("{} OK".format), st.none()))
def test_a_response_has_three_digits_or_none(value: Any) -> None:
    found = labels.http_status_code(value)
    is_short = not isinstance(value, int) or abs(value) < 2**64
    assert found == (three_digits(value) if is_short else "none")


@fuzzed(EXAMPLES, text=any_text)
def test_an_id_is_kept_so_that_it_comes_back(text: str) -> None:
    try:
        identity = identify(text)
    except UnicodeEncodeError:
        assert any(0xD800 <= ord(letter) <= 0xDFFF for letter in text)
        return
    assert identity.day == (day_of(text) or UNDATED)
    if not any(0xDC80 <= ord(letter) <= 0xDCFF for letter in text):  # which stand for bytes
        assert text_of(identity.day, identity.stored) == text


def test_what_is_nearly_a_ulid_has_its_day_or_none() -> None:
    chance = seeded("ulids")
    dated = 0
    for _ in counted(TEXTS, "ulids"):
        text = ulid(chance.randrange(1 << 52), chance.getrandbits(80))
        if chance.random() < 0.5:
            text = mutate(text.encode(), chance).decode("latin-1")
        identity = identify(text)
        assert identity.day == (day_of(text) or UNDATED)
        assert text_of(identity.day, identity.stored) == text
        dated += identity.day != UNDATED
    assert dated


def family(name: str, texts: Sequence[str]) -> Family:
    """A series for each pair of texts; the same labels never come twice."""
    width = len(CATALOG[name].keys)
    rows = dict.fromkeys(
        tuple(texts[(start + index) % len(texts)] for index in range(width)) for start in range(len(texts))
    )
    return Family(name, [(row, float(number)) for number, row in enumerate(rows)], 0.0, "test")


texts = st.lists(unicode_text.map(lambda text: text.encode("utf-8", "replace").decode()[:500]), min_size=1, max_size=6)


def expected(told: Family) -> dict[frozenset[tuple[str, str]], float]:
    keys = CATALOG[told.name].keys
    return {frozenset(zip(keys, values, strict=True)): value for values, value in told.samples}


@fuzzed(EXAMPLES, texts=texts)
def test_any_unicode_text_comes_back_from_both_text_formats(texts: list[str]) -> None:
    told = [family(name, texts) for name in (DELIVERIES, EVENT_BACKLOG, ATTEMPTS)]
    for accept in FORMATS:
        found = parsed(own_text(accept, *told), openmetrics=accept == OPENMETRICS)
        for each in told:
            assert found[each.name] == expected(each)


@fuzzed(EXAMPLES // 5, texts=texts)
def test_any_unicode_text_comes_back_from_what_instruments_observe(texts: list[str]) -> None:
    told = family(SIZE, texts)
    assert parsed(stock_text(CLASSIC, told))[SIZE] == expected(told)


@fuzzed(EXAMPLES // 5, texts=texts)
def test_any_unicode_text_comes_back_from_otlp(texts: list[str]) -> None:
    told = [family(name, texts) for name in (DELIVERIES, ATTEMPTS)]
    metrics = metrics_of(pushed(*told))
    for each in told:
        assert values_of(metrics[each.name]) == expected(each)


MARKUP = (
    "<b>",
    "</td>",
    '"><i x="',
    "'><i>",
    "<!--",
    "<![CDATA[",
    "&lt;b&gt;",
    "<script>alert(1)</script>",
    "</title>",
)
page_text = st.one_of(st.sampled_from(MARKUP), any_text.filter(lambda text: text.strip() != "" and len(text) < 2_000))


class Structure(HTMLParser):
    """The elements of a page with the names of their attributes, and the text in it."""

    def __init__(self, page: bytes) -> None:
        super().__init__()
        self.elements: list[tuple[str, tuple[str, ...]]] = []
        self.text = ""
        self.feed(page.decode())
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, tuple(name for name, _ in attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


@fuzzed(EXAMPLES // 5, text=page_text)
def test_no_text_changes_what_a_page_is_made_of(text: str) -> None:
    usual, odd = (Structure(status_page(full_status(each), NOW)) for each in ("x", text))
    assert odd.elements == usual.elements
