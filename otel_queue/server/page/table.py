"""A table that becomes a list of cards on a phone: each cell knows its heading."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from otel_queue.server.page.html import Html, element, together


@dataclass(frozen=True, slots=True)
class Column:
    """A heading, the unit, and what stands beneath: words, a `number`, a `chart`, or the `name` of the row."""

    heading: str
    unit: str = ""
    kind: str = ""


def table(name: str, columns: Sequence[Column], rows: Iterable[Sequence[str]]) -> Html:
    """The table; `name` is what a screen reader calls it."""
    head = element("tr", *(_heading(column) for column in columns))
    body = (element("tr", *map(_cell, columns, row)) for row in rows)
    return element("table", element("thead", head), element("tbody", *body), aria_label=name)


def badge(word: str, kind: str) -> Html:
    """A word in the colour of its kind: `good`, `warn`, `bad` or `quiet`. Its word says what the colour says."""
    return element("span", word, class_=f"badge {kind}")


def _heading(column: Column) -> Html:
    unit = element("span", column.unit, class_="unit") if column.unit else ""
    return element("th", column.heading, " " if unit else "", unit, scope="col", class_=column.kind or None)


def _cell(column: Column, content: str) -> Html:
    label = f"{column.heading}, {column.unit}" if column.unit else column.heading
    # One box for whatever the cell holds: on a phone it stands beside the label.
    held = element("div", together(content))
    if column.kind == "name":
        return element("th", held, scope="row")
    return element("td", held, data_label=label, class_=column.kind or None)
