"""`otel-queue catalog`: every metric, from the one place that defines them."""

import argparse
import json
from collections.abc import Iterable
from dataclasses import asdict
from typing import Any, Final

from otel_queue.catalog import CATALOG, Row
from otel_queue.cli import FINE
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.table import table

_MARKDOWN_HEAD: Final = """\
# Metrics

Generated from the catalog by `make docs`; `make check` compares. A row whose *since* is later than the installed
version is not exported yet; opt-in rows are absent until they are configured. Stable names exist outside this
project too and do not change. Units in braces count things; they never show in a name.

| metric | kind | unit | attribute keys | owner | stability | since | description |
|---|---|---|---|---|---|---|---|
"""


def add_command(commands: Any) -> None:
    """Adds `catalog`."""
    parser = commands.add_parser("catalog", help="print every metric")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--markdown", action="store_true", help="as docs/metrics.md")
    form.add_argument("--json", action="store_true", help="as a JSON array")
    form.add_argument(
        "--collector", action="store_true", help="as allow lists for a Collector, narrowed by the file's [attributes]"
    )
    add_settings(parser, ())
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    rows = CATALOG.values()
    if options.json:
        print(json.dumps([asdict(row) for row in rows], indent=2))
    elif options.markdown:
        print(markdown(rows), end="")
    elif options.collector:
        print(_collector(options), end="")
    else:
        head = ("METRIC", "KIND", "UNIT", "KEYS", "OWNER", "STABILITY", "SINCE")
        print(table(head, ((row.name, row.kind, row.unit, ",".join(row.keys), row.owner, row.stability, row.since)
                           for row in rows)))  # fmt: skip
    return FINE


def _collector(options: argparse.Namespace) -> str:
    from otel_queue.export.allow_lists import collector_processors

    return "processors:\n" + collector_processors(settings_of(options).attributes)


def markdown(rows: Iterable[Row]) -> str:
    """The text of docs/metrics.md."""
    return _MARKDOWN_HEAD + "".join(
        f"| `{row.name}` | {row.kind} | {row.unit or '-'} | {', '.join(row.keys) or '-'} | {row.owner} "
        f"| {_stability(row)} | {row.since} | {row.description} |\n"
        for row in rows
    )


def _stability(row: Row) -> str:
    notes = [row.stability, *(["opt-in"] if row.opt_in else [])]
    if row.removed_in:
        notes.append(f"removed in {row.removed_in}")
    return ", ".join(notes)
