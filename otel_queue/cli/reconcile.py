"""`otel-queue reconcile`: makes the ledger agree with the database's rows, and says what was repaired."""

import argparse
import contextlib
from typing import TYPE_CHECKING, Any, Final

from otel_queue.cli import FINDING, FINE
from otel_queue.cli.rows import Opened, add_load, run_over_rows
from otel_queue.cli.table import table
from otel_queue.plural import number_of

if TYPE_CHECKING:
    from otel_queue.seeding.report import Report

_SHOWN_CHARACTERS: Final = 60


def add_command(commands: Any) -> None:
    """Adds `reconcile`."""
    parser = commands.add_parser("reconcile", help="repair the ledger by the gateway's rows; can be repeated and ended")
    parser.add_argument("--dry-run", action="store_true", help="say what would be repaired; write nothing")
    parser.add_argument("--json", action="store_true", help="as JSON, with examples of what was found")
    add_load(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    return run_over_rows(options, lambda opened: _reconcile(options, opened))


def _reconcile(options: argparse.Namespace, opened: Opened) -> int:
    from otel_queue.ledger.connect import ledger_store, ledger_tracked, ledger_upkeep
    from otel_queue.seeding.reconcile import LedgerParts, Reconcile

    config, pace = opened.config, opened.pace
    with (
        contextlib.closing(ledger_store(config)) as store,
        contextlib.closing(ledger_tracked(config)) as tracked,
        contextlib.closing(ledger_upkeep(config)) as upkeep,
        opened.progress() as progress,
    ):
        report = Reconcile(
            opened.rows,
            LedgerParts(store, tracked, upkeep, opened.counts),
            project=options.project,
            is_dry=options.dry_run,
            pace=pace,
            progress=progress,
        ).run()
    if options.json:
        print(report.as_json())
    else:
        _print(report, with_examples=options.verbose)
    return FINE if report.is_clean else FINDING


def _print(report: "Report", *, with_examples: bool) -> None:
    for what, number in sorted(report.read.items()):
        print(f"{what} read: {number}")
    if report.early_attempts:
        print(f"before the ledger's birth, where its counter starts: {number_of(report.early_attempts, 'attempt')}")
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
