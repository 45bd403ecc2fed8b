"""`otel-queue seed`: the database's rows into the ledger."""

import argparse
import json
import signal
import sys
import threading
from typing import Any, Final

from otel_queue.cli import FINDING, FINE, UNREACHABLE
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.config import Config

_MOST_SHOWN: Final = 10
# The database ends a transaction that idles for longer.
_LONGEST_PAUSE_SECONDS: Final = 20.0
_LARGEST_BATCH: Final = 50_000


def add_command(commands: Any) -> None:
    """Adds `seed`."""
    parser = commands.add_parser("seed", help="merge the gateway's rows into the ledger; can be repeated and ended")
    add_load(parser)
    parser.add_argument("--dry-run", action="store_true", help="estimate rows, time and memory; write nothing")
    parser.add_argument("--json", action="store_true", help="the summary as JSON")
    add_settings(parser, ("redis", "ledger", "postgres"))
    parser.set_defaults(run=_run)


def add_load(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how much is read at once, and of whom."""
    parser.add_argument("--project", help="only this project")
    parser.add_argument(
        "--no-attempts",
        action="store_true",
        help="leave the attempts out: for workers that report them without the ids of their rows",
    )
    parser.add_argument("--pause", type=_seconds, default=0.05, metavar="SECONDS", help="between batches; default 0.05")
    parser.add_argument("--batch", type=_rows, default=2_000, metavar="ROWS", help="rows in a batch; default 2000")


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 <= value <= _LONGEST_PAUSE_SECONDS:
        raise argparse.ArgumentTypeError(f"must be 0 to {_LONGEST_PAUSE_SECONDS:g} seconds, not {text}")
    return value


def _rows(text: str) -> int:
    value = int(text)
    if not 1 <= value <= _LARGEST_BATCH:
        raise argparse.ArgumentTypeError(f"must be 1 to {_LARGEST_BATCH} rows, not {text}")
    return value


def open_rows(config: Config, options: argparse.Namespace, stop: threading.Event) -> Any:
    """The rows of the configured database; raises ConfigError where there is none."""
    from otel_queue.errors import ConfigError

    if config.postgres.dsn is None:
        raise ConfigError(["postgres.dsn is not set: the rows come from the gateway's database"])
    from otel_queue.postgres.database import Database
    from otel_queue.postgres.dsn import Dsn
    from otel_queue.postgres.rows import Rows

    database = Database(Dsn(config.postgres.dsn), statement_timeout_seconds=config.postgres.statement_timeout_seconds)
    return Rows(
        database,
        project=options.project,
        with_attempts=not options.no_attempts,
        batch_rows=options.batch,
        sleep=stop.wait,
    )


def stop_on_signals() -> threading.Event:
    """Set by the first SIGINT or SIGTERM; the second one ends the process."""
    stop = threading.Event()

    def ask(number: int, _: Any) -> None:
        stop.set()
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, ask)
    return stop


def _run(options: argparse.Namespace) -> int:
    from otel_queue.errors import ReadError, WriteError
    from otel_queue.ledger.connect import ledger_counts, ledger_retention
    from otel_queue.seeding.pace import Pace, StoppedError
    from otel_queue.seeding.window import window_at

    config = settings_of(options)
    stop = stop_on_signals()
    rows = open_rows(config, options, stop)
    pace = Pace(options.pause, stop)
    counts = ledger_counts(config)
    try:
        window = window_at(pace.patiently(counts.clock), ledger_retention(config))
        if options.dry_run:
            return _forecast(options, rows, window)
        return _seed(options, config, rows, counts, pace, window)
    except StoppedError as error:
        print(f"otel-queue: {error}", file=sys.stderr)
        return FINDING
    except (ReadError, WriteError) as error:
        print(f"otel-queue: cannot go on ({error.reason}): {error}; running it again goes on safely", file=sys.stderr)
        return UNREACHABLE
    finally:
        counts.close()


def _forecast(options: argparse.Namespace, rows: Any, window: Any) -> int:
    from otel_queue.seeding.forecast import forecast

    found = forecast(rows, window, pause_seconds=options.pause, batch_rows=options.batch)
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
    print(f"would merge about {expected.deliveries} deliveries and {expected.events} events one by one, and")
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


def _seed(options: argparse.Namespace, config: Config, rows: Any, counts: Any, pace: Any, window: Any) -> int:
    from otel_queue.ledger.connect import ledger_store
    from otel_queue.seeding.progress import Progress
    from otel_queue.seeding.seed import Seed

    store = ledger_store(config)
    try:
        with Progress(sum(rows.estimate(window.first_id))) as progress:
            seeded = Seed(rows, store, counts, pace=pace, progress=progress).run()
    finally:
        store.close()
    _print(options, seeded)
    return FINE if seeded.is_complete else FINDING


def _print(options: argparse.Namespace, seeded: Any) -> None:
    written = seeded.written
    if options.json:
        told = {
            "rows": dict(sorted(seeded.rows.items())),
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
        print(f"{number} {what} read")
    print(f"{written.changed} records changed the ledger, {written.unchanged} were known")
    print(f"{seeded.old_days} days put as counts, which are approximate")
    if written.late:
        print(f"{written.late} records were late: their days are expired, folded or not tracked any more")
    for project, days in _some(seeded.left_out):
        print(f"left out of {project}: {len(days)} days, {days[0]} to {days[-1]}: they are expired or folded")
    for reason, number in _some(seeded.unmergeable):
        print(f"{number} rows not merged: {reason}")
    print(f"{seeded.seconds:.1f} s")


def _some(found: dict[str, Any]) -> list[tuple[str, Any]]:
    shown = sorted(found.items())
    if len(shown) > _MOST_SHOWN:
        print(f"the first {_MOST_SHOWN} of {len(shown)}; --json has all of them:")
    return shown[:_MOST_SHOWN]
