"""Series that are aggregated already read as if the SDK's own reader had written them."""

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from otel_queue.catalog import CATALOG, Row
from otel_queue.export.series import SeriesText
from otel_queue.samples import Family
from tests.export.ways_out import CLASSIC, FORMATS, OPENMETRICS, labels, own_text, parsed, stock_text

DOMAIN = [row for row in CATALOG.values() if row.owner == "ledger"]
ATTEMPTS = CATALOG["convoy_event_delivery_attempts_total"]
INFO = CATALOG["convoy_project_info"]
NASTY = 'quote " backslash \\ newline \n brace } comma , equals = ü 字 \\n'

# All that a label may hold once control characters are out of it, and line breaks too: nothing here relies on that.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\r\x00"), max_size=12)
numbers = st.one_of(
    st.integers(0, 10**17).map(float),
    st.floats(min_value=0.0, allow_nan=False, allow_infinity=False),
)


def family_of(row: Row) -> st.SearchStrategy[Family]:
    label_values = st.tuples(*(texts for _ in row.keys))
    return st.dictionaries(label_values, numbers, max_size=5).map(
        lambda found: Family(row.name, list(found.items()), 1.0, "ledger")
    )


families = st.tuples(*(family_of(row) for row in DOMAIN))


@pytest.mark.parametrize("accept", FORMATS)
@settings(max_examples=60, deadline=None)
@given(families)
def test_every_line_is_the_stock_readers(accept: str, told: tuple[Family, ...]) -> None:
    assert sorted(own_text(accept, *told).split("\n")) == sorted(stock_text(accept, *told).split("\n"))


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("value", [0.0, 1.0, 999_999.0, 1e6, 1e16, 1e21, 0.1, 1e-7, 1e300])
def test_numbers_are_written_as_the_stock_reader_writes_them(accept: str, value: float) -> None:
    family = Family(ATTEMPTS.name, [(("p", "e", "success", "200"), value)], 1.0, "ledger")
    assert sorted(own_text(accept, family).split("\n")) == sorted(stock_text(accept, family).split("\n"))


@pytest.mark.parametrize("accept", FORMATS)
def test_awkward_label_values_come_back_as_they_were(accept: str) -> None:
    told = (NASTY, "", NASTY[::-1], " ")
    text = own_text(accept, Family(INFO.name, [(told, 1.0)], 1.0, "ledger"))
    found = parsed(text, openmetrics=accept == OPENMETRICS)
    assert found[INFO.name] == {frozenset(zip(INFO.keys, told, strict=True)): 1.0}


@pytest.mark.parametrize("accept", FORMATS)
@pytest.mark.parametrize("name", [ATTEMPTS.name, "convoy_event_queue_backlog_seconds"])
def test_an_awkward_description_is_written_as_the_stock_reader_writes_it(
    accept: str, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    described = {**CATALOG, name: replace(CATALOG[name], description=NASTY)}
    for module in ("otel_queue.export.series", "tests.export.ways_out"):
        monkeypatch.setattr(f"{module}.CATALOG", described)
    family = Family(name, [(tuple(CATALOG[name].keys), 1.0)], 1.0, "ledger")
    assert sorted(own_text(accept, family).split("\n")) == sorted(stock_text(accept, family).split("\n"))


def test_openmetrics_names_a_counters_family_without_total_and_its_samples_with_it() -> None:
    family = Family(ATTEMPTS.name, [(("p", "e", "success", "200"), 3.0)], 1.0, "ledger")
    lines = own_text(OPENMETRICS, family).splitlines()
    assert "# TYPE convoy_event_delivery_attempts counter" in lines
    line = 'convoy_event_delivery_attempts_total{endpoint="e",http_status_code="200",project="p",status="success"} 3.0'
    assert line in lines


def test_openmetrics_leaves_a_gauge_its_name_though_it_ends_in_total() -> None:
    family = Family("convoy_event_queue_total", [(("p", "http", "success"), 3.0)], 1.0, "ledger")
    lines = own_text(OPENMETRICS, family).splitlines()
    assert "# TYPE convoy_event_queue_total gauge" in lines
    assert 'convoy_event_queue_total{project="p",source="http",status="success"} 3.0' in lines


def test_the_classic_format_gives_the_counter_its_whole_name() -> None:
    family = Family(ATTEMPTS.name, [(("p", "e", "success", "200"), 3.0)], 1.0, "ledger")
    assert "# TYPE convoy_event_delivery_attempts_total counter" in own_text(CLASSIC, family).splitlines()


def test_openmetrics_ends_once_and_at_the_end() -> None:
    lines = own_text(OPENMETRICS, Family(INFO.name, [(("p", "", "", ""), 1.0)], 1.0, "ledger")).splitlines()
    assert [number for number, line in enumerate(lines) if line == "# EOF"] == [len(lines) - 1]


@pytest.mark.parametrize("accept", FORMATS)
def test_a_family_without_samples_has_no_lines_at_all(accept: str) -> None:
    assert ATTEMPTS.name.removesuffix("_total") not in own_text(accept, Family(ATTEMPTS.name, [], 1.0, "ledger"))


def test_a_series_that_vanishes_is_gone_and_one_that_comes_back_is_there_with_its_new_value() -> None:
    text = SeriesText({})

    def rendered(**counts: float) -> dict[str, float]:
        samples = [(("p", source, "success"), value) for source, value in counts.items()]
        family = Family("convoy_event_queue_total", samples, 1.0, "ledger")
        found = parsed(text.render([family], openmetrics=False).decode()).get("convoy_event_queue_total", {})
        return {dict(series)["source"]: value for series, value in found.items()}

    many = {f"s{number}": 1.0 for number in range(50)}
    assert rendered(**many) == many
    assert rendered(s1=2.0) == {"s1": 2.0}
    assert rendered() == {}
    assert rendered(s1=3.0, s7=4.0) == {"s1": 3.0, "s7": 4.0}


def test_what_is_remembered_of_series_that_vanished_is_bounded_by_those_that_live() -> None:
    text = SeriesText({})
    for turn in range(50):
        samples = [(("p", f"turn {turn} source {number}", "success"), 1.0) for number in range(20)]
        text.render([Family("convoy_event_queue_total", samples, 1.0, "ledger")], openmetrics=False)
        assert sum(len(prefixes) for prefixes in text._prefixes.values()) <= 2 * 20


def test_two_formats_of_one_family_do_not_share_what_differs() -> None:
    text = SeriesText({})
    family = Family(ATTEMPTS.name, [(("p", "e", "success", "200"), 3.0)], 1.0, "ledger")
    classic, other = (text.render([family], openmetrics=asked).decode() for asked in (False, True))
    assert parsed(classic) == {ATTEMPTS.name: {labels(project="p", endpoint="e", status="success",
                                                      http_status_code="200"): 3.0}}  # fmt: skip
    assert parsed(other + "# EOF\n", openmetrics=True) == parsed(classic)
