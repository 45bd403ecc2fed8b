"""Runs benchmarks and prints one JSON object a line.

Exits 1 if a row misses its budget or breaks, 2 for an unknown name. What this machine cannot run is skipped.
"""

import sys
from collections.abc import Callable, Iterator, Sequence

import _pytest.outcomes

from tests.bench import database, export, follow, growth, inspector, ledger, merging, package, reads, recorder, scrape
from tests.bench.result import Result

Bench = Callable[[str], Iterator[Result]]

BENCHES: dict[str, Bench] = {
    "inspector-wall": inspector.wall,
    "inspector-wall-1ms": inspector.wall_with_delay,
    "inspector-redis-time": inspector.redis_time,
    "inspector-wall-memory": inspector.wall_with_memory,
    "inspector-redis-time-memory": inspector.redis_time_with_memory,
    "scrape-queues": scrape.queues,
    "recorder-call": recorder.call,
    "handler-redis-down": recorder.handler_redis_down,
    "ledger-write": ledger.write,
    "ledger-read": ledger.read,
    "cold-read": reads.cold,
    "idle-read": reads.idle,
    "ledger-memory": ledger.memory,
    "ledger-merge": merging.merge,
    "scrape-50k": export.scrape,
    "otlp-push-50k": export.push,
    "growth-queues": growth.queues,
    "growth-series": growth.series,
    "database-time": database.time_spent,
    "seed-cost": database.once,
    "follow-fill": follow.fill,
    "follow-steady": follow.steady,
    "import-time": package.import_time,
    "help-time": package.help_time,
}


def main(chosen: Sequence[str]) -> int:
    """Runs the chosen benchmarks, or all of them; returns the exit code."""
    unknown = [name for name in chosen if name not in BENCHES]
    if unknown:
        print(f"no benchmark {', '.join(map(repr, unknown))}; there are {', '.join(BENCHES)}", file=sys.stderr)
        return 2
    all_fine = True
    for name, bench in BENCHES.items():
        if chosen and name not in chosen:
            continue
        for result in _results(name, bench):
            print(result.line(), flush=True)
            all_fine = all_fine and result.ok is not False
    return 0 if all_fine else 1


def _results(name: str, bench: Bench) -> Iterator[Result]:
    """The benchmark's rows; what ends it early is its last one."""
    try:
        yield from bench(name)
    # A missing Go is told as a test would be told: by pytest's own outcomes.
    except _pytest.outcomes.Skipped as skipped:
        yield Result(name, None, "", None, {"skipped": str(skipped)})
    except (_pytest.outcomes.Failed, Exception) as error:
        yield Result(name, None, "", None, {"error": f"{type(error).__name__}: {error}"}, is_broken=True)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
