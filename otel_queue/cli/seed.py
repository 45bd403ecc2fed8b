"""`otel-queue seed`: the database's rows into the ledger."""

import argparse
import contextlib
import json
from typing import TYPE_CHECKING, Any, Final

from otel_queue.cli import FINDING, FINE
from otel_queue.cli.rows import Opened, add_load, run_over_rows
from otel_queue.plural import number_of

if TYPE_CHECKING:
    from otel_queue.seeding.seed import Seeded

_MOST_SHOWN: Final = 10


def add_command(commands: Any) -> None:
    """Adds `seed`."""
    parser = commands.add_parser("seed", help="merge the gateway's rows into the ledger; can be repeated and ended")
    parser.add_argument("--dry-run", action="store_true", help="estimate rows, time and memory; write nothing")
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    add_load(parser)
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    act = _forecast if options.dry_run else _seed
    return run_over_rows(options, lambda opened: act(options, opened))


def _forecast(options: argparse.Namespace, opened: Opened) -> int:
    from otel_queue.seeding.forecast import forecast

    window = opened.window
    found = forecast(opened.rows, window, pause_seconds=options.pause, batch_rows=options.batch)
    if options.json:
        told = {
            "rows": found.rows._asdict(),
            "rows_per_second": found.rows_per_second,
            "seconds": found.seconds,
            "ledger_bytes": found.ledger_bytes,
            "last_old_day": window.last_old_day,
        }
        print(json.dumps(told, indent=2))
        return FINE
    expected = found.rows
    print(f"would merge about {expected.deliveries} deliveries, {expected.events} events and {expected.attempts} "
          "attempts one by one, and")  # fmt: skip
    print(f"would count about {expected.old_deliveries} deliveries and {expected.old_events} events of days up to "
          f"{window.last_old_day}")  # fmt: skip
    if found.seconds is None:
        print("nothing could be read to tell how long that takes")
    else:
        print(f"reading takes about {found.seconds:.0f} s at {found.rows_per_second:.0f} rows a second, pauses "
              "included; writing to the ledger comes on top")  # fmt: skip
    print(f"the ledger would need up to {found.ledger_bytes / 1e6:.1f} MB for what it tracks")
    print("nothing was written")
    return FINE


def _seed(options: argparse.Namespace, opened: Opened) -> int:
    from otel_queue.ledger.connect import ledger_store
    from otel_queue.seeding.seed import Seed

    with contextlib.closing(ledger_store(opened.config)) as store, opened.progress() as progress:
        seeded = Seed(opened.rows, store, opened.counts, pace=opened.pace, progress=progress).run()
    _print(seeded, as_json=options.json)
    return FINE if seeded.is_complete else FINDING


def _print(seeded: "Seeded", *, as_json: bool) -> None:
    written = seeded.written
    if as_json:
        told = {
            "rows": dict(sorted(seeded.rows.items())),
            "early_attempts": seeded.early_attempts,
            "changed": written.changed,
            "known": written.unchanged,
            "late": written.late,
            "clamped": written.clamped,
            "old_days": seeded.old_days,
            "left_out": seeded.left_out,
            "unmergeable": dict(seeded.unmergeable),
            "seconds": round(seeded.seconds, 3),
        }
        print(json.dumps(told, indent=2))
        return
    for what, number in sorted(seeded.rows.items()):
        print(f"{what} read: {number}")
    if seeded.early_attempts:
        print(f"before the ledger's birth, where its counter starts: {number_of(seeded.early_attempts, 'attempt')}")
    print(f"changed the ledger: {number_of(written.changed, 'record')}; known before: {written.unchanged}")
    print(f"put as counts, which are approximate: {number_of(seeded.old_days, 'day')}")
    if written.late:
        print(f"late: {number_of(written.late, 'record')} of days that are expired, folded or not tracked any more")
    for project, days in _some(seeded.left_out):
        print(f"left out of {project}, expired or folded: {number_of(len(days), 'day')}, {days[0]} to {days[-1]}")
    for reason, number in _some(seeded.unmergeable):
        print(f"not merged: {number_of(number, 'row')}: {reason}")
    print(f"{seeded.seconds:.1f} s")


def _some(found: dict[str, Any]) -> list[tuple[str, Any]]:
    shown = sorted(found.items())
    if len(shown) > _MOST_SHOWN:
        print(f"the first {_MOST_SHOWN} of {len(shown)}; --json has all of them:")
    return shown[:_MOST_SHOWN]
