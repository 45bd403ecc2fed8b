"""`otel-queue follow`: keeps a ledger equal to the rows of the gateway's database."""

import argparse
import contextlib
import json
import logging
import sys
import threading
import time
from typing import TYPE_CHECKING, Any, Final

from otel_queue.cli import FINDING, FINE, UNREACHABLE
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.stopping import stop_on_signals
from otel_queue.cli.table import table
from otel_queue.errors import ReadError, WriteError

if TYPE_CHECKING:
    from otel_queue.config import Config
    from otel_queue.database.follower import Follower, Turn

# Differences that are printed.
_SHOWN: Final = 20
_log: Final = logging.getLogger(__name__)


def add_command(commands: Any) -> None:
    """Adds `follow`."""
    parser = commands.add_parser("follow", help="keep a ledger equal to the rows of the gateway's database")
    parser.add_argument("--once", action="store_true", help="what is left of the first fill, one look and one sweep")
    parser.add_argument("--verify", action="store_true", help="count all rows, compare the ledger with them, end")
    parser.add_argument("--json", action="store_true", help="with --once or --verify: as JSON")
    add_settings(parser, ("redis", "ledger", "postgres", "follow"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from otel_queue.database.follower import Follower

    config, stop = settings_of(options), stop_on_signals()
    if options.verify:
        return _verify(config, as_json=options.json)
    with contextlib.closing(Follower(config)) as follower:
        if options.once:
            return _once(follower, stop, as_json=options.json)
        return _follow(follower, stop, config.follow.look_seconds)


def _verify(config: "Config", *, as_json: bool) -> int:
    from otel_queue.database.verify import verify

    differences = verify(config)
    if as_json:
        print(json.dumps([each._asdict() for each in differences], indent=2))
    elif differences:
        rows = ((each.metric, ",".join(each.labels), each.ledger, each.database) for each in differences[:_SHOWN])
        print(table(("METRIC", "LABELS", "LEDGER", "ROWS"), rows))
        if len(differences) > _SHOWN:
            print(f"the first {_SHOWN} of {len(differences)} series; --json has all of them")
    else:
        print("the ledger is equal to the rows")
    return FINDING if differences else FINE


def _once(follower: "Follower", stop: threading.Event, *, as_json: bool) -> int:
    try:
        turn = follower.turn(stop)
    except WriteError as error:
        print(f"otel-queue: cannot be written ({error.reason}): {error}", file=sys.stderr)
        return UNREACHABLE
    if not turn.has_lease:
        print("otel-queue: another follower is at work on this ledger", file=sys.stderr)
        return FINDING
    _print(turn, as_json=as_json)
    return FINDING if turn.failures or turn.swept is None else FINE


def _print(turn: "Turn", *, as_json: bool) -> None:
    looked, swept = turn.looked, turn.swept
    told = {
        "looked": dict(looked.rows) if looked else {},
        "swept": dict(swept.rows) if swept else {},
        "set_right": {what: count for what, count in swept.repaired.items() if count} if swept else {},
        "failures": dict(turn.failures),
    }
    if as_json:
        print(json.dumps(told, indent=2))
        return
    for what, counts in told.items():
        words = ", ".join(f"{count} {name}" for name, count in counts.items() if count)
        print(f"{what.replace('_', ' ')}: {words or 'nothing'}")


def _follow(follower: "Follower", stop: threading.Event, look_seconds: float) -> int:
    """Until it is asked to end. What cannot be read or written is logged when that begins and when it ends."""
    failing = ""
    has_lease: bool | None = None
    while not stop.is_set():
        due = time.monotonic() + look_seconds
        try:
            turn = follower.turn(stop, until=due - look_seconds / 2)
        except (ReadError, WriteError) as error:
            if error.reason != failing:
                failing = error.reason
                _log.warning("follow: failing (%s): %s", error.reason, error)
        else:
            if failing:
                _log.info("follow: reading and writing again")
            failing = ""
            if turn.has_lease != has_lease:
                has_lease = turn.has_lease
                _log.info("follow: %s", "following" if has_lease else "waiting, since another follower is at work")
        stop.wait(max(0.0, due - time.monotonic()))
    return FINE
