"""`otel-queue reconcile`: makes the ledger agree with the database's rows, and says what was repaired."""

import argparse
import contextlib
import sys
from typing import Any, Final

from otel_queue.cli import FINDING, FINE, UNREACHABLE
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.seed import add_load, open_rows, stop_on_signals
from otel_queue.cli.table import table
from otel_queue.config import Config

_SHOWN_CHARACTERS: Final = 60


def add_command(commands: Any) -> None:
    """Adds `reconcile`."""
    parser = commands.add_parser("reconcile", help="repair the ledger by the gateway's rows; can be repeated and ended")
    add_load(parser)
    parser.add_argument("--dry-run", action="store_true", help="say what would be repaired; write nothing")
    parser.add_argument("--json", action="store_true", help="as JSON, with examples of what was found")
    add_settings(parser, ("redis", "ledger", "postgres"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from otel_queue.errors import ReadError, WriteError
    from otel_queue.seeding.pace import StoppedError

    try:
        report = _reconcile(options, settings_of(options))
    except StoppedError as error:
        print(f"otel-queue: {error}", file=sys.stderr)
        return FINDING
    except (ReadError, WriteError) as error:
        print(f"otel-queue: cannot go on ({error.reason}): {error}; running it again goes on safely", file=sys.stderr)
        return UNREACHABLE
    if options.json:
        print(report.as_json())
    else:
        _print(report, with_examples=options.verbose)
    return FINE if report.is_clean else FINDING


def _reconcile(options: argparse.Namespace, config: Config) -> Any:
    from otel_queue.ledger.connect import ledger_counts, ledger_retention, ledger_store, ledger_tracked, ledger_upkeep
    from otel_queue.seeding.pace import Pace
    from otel_queue.seeding.progress import Progress
    from otel_queue.seeding.reconcile import LedgerParts, Reconcile
    from otel_queue.seeding.window import window_at

    stop = stop_on_signals()
    rows = open_rows(config, options, stop)
    pace = Pace(options.pause, stop)
    ledger = LedgerParts(ledger_store(config), ledger_tracked(config), ledger_upkeep(config), ledger_counts(config))
    with contextlib.ExitStack() as stack:
        for part in ledger:
            stack.callback(part.close)
        window = window_at(pace.patiently(ledger.counts.clock), ledger_retention(config))
        progress = stack.enter_context(Progress(sum(rows.estimate(window.first_id))))
        return Reconcile(
            rows, ledger, project=options.project, is_dry=options.dry_run, pace=pace, progress=progress
        ).run()


def _print(report: Any, *, with_examples: bool) -> None:
    for what, number in sorted(report.read.items()):
        print(f"{number} {what} read")
    heading = "TO REPAIR" if report.is_dry else "REPAIRED"
    _print_counts(("PROJECT", heading, "COUNT"), report.found)
    _print_counts(("PROJECT", "LEFT: NOT TO BE REPAIRED", "COUNT"), report.left)
    _print_counts(("PROJECT", "BEYOND: OF CLOSED DAYS", "COUNT"), report.beyond)
    _print_counts(("PROJECT", "MOVING: FOR THE NEXT RUN", "COUNT"), report.moving)
    if with_examples and report.examples:
        head = ("PROJECT", "WHAT", "ID", "FIELD", "HELD", "DATABASE")
        print(table(head, ([_short(value) for value in finding] for finding in report.examples)))
    if not report.found:
        print("nothing to repair")
    if report.is_dry:
        print("nothing was written")
    print(f"{report.seconds:.1f} s")


def _print_counts(head: tuple[str, ...], counts: Any) -> None:
    if counts:
        print(table(head, ((project or "-", what, count) for (project, what), count in sorted(counts.items()))))


def _short(value: str | None) -> str | None:
    return value if value is None or len(value) <= _SHOWN_CHARACTERS else value[: _SHOWN_CHARACTERS - 3] + "..."
