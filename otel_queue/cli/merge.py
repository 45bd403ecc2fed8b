"""`otel-queue ledger merge`: takes what rows say, out of the follower's ledger, into the one that hooks write."""

import argparse
import contextlib
import logging
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from otel_queue.cli import FINDING, FINE, UNREACHABLE
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.table import table

if TYPE_CHECKING:  # imported by who runs, so that --help stays quick
    from otel_queue.ledger.merge import Report

_log: Final = logging.getLogger(__name__)
_LINE_SECONDS: Final = 10.0


def add_action(actions: Any) -> None:
    """Adds `merge` to what can be done with a ledger."""
    action = actions.add_parser(
        "merge", help="take what rows say from the follower's ledger; can be repeated and ended"
    )
    action.add_argument("--project", help="only this project")
    action.add_argument("--dry-run", action="store_true", help="say what would be merged, and write nothing")
    action.add_argument(
        "--force",
        action="store_true",
        help="also forget what has no row, end several days, and change more than 5 %% of a project's statuses",
    )
    action.add_argument(
        "--no-attempts",
        action="store_true",
        help="leave the attempts out: for workers that report them without the ids of their rows",
    )
    action.add_argument("--json", action="store_true", help="as JSON")
    add_settings(action, ("redis", "ledger", "follow"))
    action.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from otel_queue.errors import OtelQueueError, ReadError, WriteError
    from otel_queue.ledger.connect import ledger_side
    from otel_queue.ledger.merge import Merge

    config = settings_of(options)
    with (
        contextlib.closing(ledger_side(config.followed)) as rows,
        contextlib.closing(ledger_side(config)) as hooks,
    ):
        merge = Merge(
            rows, hooks, project=options.project, force=options.force, with_attempts=not options.no_attempts,
            advance=_lines(), survey=None if options.json or options.dry_run else _print,
        )  # fmt: skip
        try:
            report = merge.run(is_dry=options.dry_run)
        except (ReadError, WriteError) as error:
            if error.reason == "no_birth":
                raise OtelQueueError(
                    f"{error}: begin it with `otel-queue ledger init`, or `otel-queue follow`"
                ) from error
            print(
                f"otel-queue: cannot go on ({error.reason}): {error}; running it again goes on safely", file=sys.stderr
            )
            return UNREACHABLE
    if options.json:
        print(report.as_json())
    else:
        _print(report)
    for reason in report.reasons:
        print(f"otel-queue: {reason}", file=sys.stderr)
    if report.reasons and not options.force:
        print(
            "otel-queue: nothing more was written: make sure that the follower reads the right database, and no old "
            "copy of it, then merge with --force",
            file=sys.stderr,
        )
    return FINE if report.is_clean else FINDING


def _lines() -> Callable[[int, str], None]:
    """Logs now and then how many ids were compared."""
    began = said = time.monotonic()
    compared = 0

    def advance(ids: int, what: str) -> None:
        nonlocal said, compared
        compared += ids
        now = time.monotonic()
        if now - said >= _LINE_SECONDS:
            said = now
            _log.info(
                "merge: %d ids compared, %.0f a second, now those of %s", compared, compared / (now - began), what
            )

    return advance


def _print(report: "Report") -> None:
    for what, number in sorted(report.compared.items()):
        print(f"{what} ids compared: {number}")
    _print_counts("TO MERGE" if report.is_dry else "MERGED", report.merged)
    _print_counts("LEFT AS IT IS", report.left)
    _print_counts("OF CLOSED DAYS", report.beyond)
    _print_counts("MOVING: FOR THE NEXT RUN", report.moving)
    if not report.merged:
        print("nothing to merge")
    if report.is_dry:
        print("nothing was written")
    print(f"{report.seconds:.1f} s")


def _print_counts(heading: str, counts: Any) -> None:
    if counts:
        head = ("PROJECT", heading, "COUNT")
        print(table(head, ((project, what, count) for (project, what), count in sorted(counts.items()))))
