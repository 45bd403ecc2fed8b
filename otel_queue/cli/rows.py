"""What `seed` and `reconcile` have in common: they go over the gateway's rows, at a pace, and can be ended."""

import argparse
import contextlib
import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from otel_queue.cli import FINDING, UNREACHABLE
from otel_queue.cli.numbers import number
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.stopping import stop_on_signals
from otel_queue.config import Config

if TYPE_CHECKING:  # imported by who runs, so that --help stays quick
    from otel_queue.ledger.administration import Clock
    from otel_queue.ledger.counts import CountsStore
    from otel_queue.postgres.rows import Rows
    from otel_queue.seeding.pace import Pace
    from otel_queue.seeding.progress import Progress
    from otel_queue.seeding.window import Window

# The database ends a transaction that idles for longer.
_LONGEST_PAUSE_SECONDS: Final = 20.0
_LARGEST_BATCH: Final = 50_000


class Opened(NamedTuple):
    """The rows of the configured database, a ledger that has its birth, and how to go over the one for the other."""

    config: Config
    rows: "Rows"
    counts: "CountsStore"
    pace: "Pace"
    window: "Window"

    def progress(self) -> "Progress":
        """Against what the planner expects of all rows."""
        from otel_queue.seeding.progress import Progress

        return Progress(sum(self.rows.estimate(self.window.first_id, self.window.first_attempt_id)))


def add_load(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that say how much is read at once, and of whom, and the settings."""
    parser.add_argument("--project", help="only this project")
    parser.add_argument(
        "--no-attempts",
        action="store_true",
        help="leave the attempts out: for workers that report them without the ids of their rows",
    )
    pause = number(float, 0, _LONGEST_PAUSE_SECONDS, "seconds")
    batch = number(int, 1, _LARGEST_BATCH, "rows")
    parser.add_argument("--pause", type=pause, default=0.05, metavar="SECONDS", help="between batches; default 0.05")
    parser.add_argument("--batch", type=batch, default=2_000, metavar="ROWS", help="rows in a batch; default 2000")
    add_settings(parser, ("redis", "ledger", "postgres"))


def run_over_rows(options: argparse.Namespace, act: Callable[[Opened], int]) -> int:
    """What `act` returns, or the exit status of a run that could not go on, which is told on stderr.

    Raises OtelQueueError where attempts would count twice.
    """
    from otel_queue.errors import ReadError, WriteError
    from otel_queue.ledger.connect import ledger_counts
    from otel_queue.seeding.pace import Pace, StoppedError
    from otel_queue.seeding.window import window_at

    config = settings_of(options)
    stop = stop_on_signals()
    rows = _open_rows(config, options, stop)
    pace = Pace(options.pause, stop)
    try:
        with contextlib.closing(ledger_counts(config)) as counts:
            clock = _begun(pace, counts)
            opened = Opened(config, rows, counts, pace, window_at(clock))
            if not options.no_attempts:
                _refuse_ids_without_rows(opened, clock, options.project)
            return act(opened)
    except StoppedError as error:
        print(f"otel-queue: {error}", file=sys.stderr)
        return FINDING
    except (ReadError, WriteError) as error:
        print(f"otel-queue: cannot go on ({error.reason}): {error}; running it again goes on safely", file=sys.stderr)
        return UNREACHABLE


def _begun(pace: "Pace", counts: "CountsStore") -> "Clock":
    from otel_queue.errors import OtelQueueError, ReadError

    try:
        return pace.patiently(counts.clock)
    except ReadError as error:
        if error.reason != "no_birth":
            raise
        raise OtelQueueError(f"{error}: run `otel-queue ledger init` first, on the ledger's own Redis") from error


def _open_rows(config: Config, options: argparse.Namespace, stop: threading.Event) -> "Rows":
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


def _refuse_ids_without_rows(opened: Opened, clock: "Clock", project: str | None) -> None:
    from otel_queue.ledger.connect import ledger_tracked, ledger_upkeep
    from otel_queue.seeding.attempts import refuse_ids_without_rows
    from otel_queue.seeding.repairs import Rest

    config = opened.config
    with (
        contextlib.closing(ledger_upkeep(config)) as upkeep,
        contextlib.closing(ledger_tracked(config)) as tracked,
    ):
        projects = opened.pace.patiently(upkeep.projects) if project is None else [project]
        rest = Rest(min(clock.now_us, opened.rows.clock()), clock.contract.max_skew_us)
        refuse_ids_without_rows(opened.rows, tracked, projects, rest, opened.pace)
