"""The Go recorder, as a program: examples/go-worker, built once per version of its sources."""

import json
import subprocess
from collections.abc import Iterable
from typing import Any, Final

from otel_queue.lifecycle import (
    UNTOLD,
    AttemptMade,
    DayExpired,
    DeliveryCreated,
    EventCreated,
    ProjectDescribed,
    Record,
    StatusSet,
)
from tests.go_program import GO_WORKER, build_go_program

RUN_TIMEOUT_SECONDS: Final = 60.0

_KINDS: Final = {
    EventCreated: "event_created",
    DeliveryCreated: "delivery_created",
    StatusSet: "status_set",
    AttemptMade: "attempt_made",
    ProjectDescribed: "project_described",
    DayExpired: "day_expired",
}


def start_replay(ledger_url: str, *options: str) -> subprocess.Popen[str]:
    """The program, reading records from its input; it ends with its input."""
    return _start("-replay", "-ledger", ledger_url, *options)


def _start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [build_go_program(GO_WORKER), *arguments],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
    )


def replay(ledger_url: str, records: Iterable[Record], *options: str) -> dict[str, int]:
    """Records everything with the Go recorder; its counts, as its Stats has them."""
    return replay_lines(ledger_url, map(line_of, records), *options)


def replay_lines(ledger_url: str, lines: Iterable[str], *options: str) -> dict[str, int]:
    """As `replay`, for lines as `line_of` makes them."""
    with start_replay(ledger_url, *options) as process:
        return stats_of(process, "".join(line + "\n" for line in lines))


def stats_of(process: subprocess.Popen[str], rest_of_input: str) -> dict[str, int]:
    """Waits for the program's end, which must be a good one."""
    try:
        out, errors = process.communicate(rest_of_input, timeout=RUN_TIMEOUT_SECONDS)
    except BaseException:
        process.kill()
        raise
    assert process.returncode == 0, errors
    stats: dict[str, int] = json.loads(out)
    return stats


def work(redis_url: str, tasks: int) -> dict[str, int]:
    """Runs the example worker for so many tasks; the counts of its recorder."""
    with _start("-redis", redis_url, "-tasks", str(tasks)) as process:
        return stats_of(process, "")


def line_of(record: Record) -> str:
    """A record as a line of the replay's input: what is not told is absent, NULL is null."""
    known: dict[str, Any] = {name: getattr(record, name) for name in record.__dataclass_fields__}
    told = {name: value for name, value in known.items() if value is not UNTOLD}
    if told.get("created_us", 0) is None:
        del told["created_us"]
    return json.dumps({"kind": _KINDS[type(record)], **told})
