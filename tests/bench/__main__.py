"""Runs the benchmarks and prints one JSON object a line. Exits 0 whatever it finds: a budget is for a reader."""

import sys
from collections.abc import Callable, Iterator

import _pytest.outcomes

from tests.bench import database, export, growth, inspector, ledger, package, reads, recorder, scrape
from tests.bench.result import Result

BENCHES: dict[str, Callable[[str], Iterator[Result]]] = {
    "inspector-wall": inspector.wall,
    "inspector-wall-1ms": inspector.wall_with_delay,
    "inspector-redis-time": inspector.redis_time,
    "scrape-queues": scrape.queues,
    "recorder-call": recorder.call,
    "handler-redis-down": recorder.handler_redis_down,
    "ledger-write": ledger.write,
    "ledger-read": ledger.read,
    "cold-read": reads.cold,
    "idle-read": reads.idle,
    "ledger-memory": ledger.memory,
    "scrape-50k": export.scrape,
    "otlp-push-50k": export.push,
    "growth-queues": growth.queues,
    "growth-series": growth.series,
    "database-time": database.time_spent,
    "seed-cost": database.once,
    "import-time": package.import_time,
    "help-time": package.help_time,
}


def main(chosen: list[str]) -> int:
    """Runs the chosen benchmarks, or all of them."""
    for name in chosen:
        if name not in BENCHES:
            print(f"no benchmark {name!r}; there are {', '.join(BENCHES)}", file=sys.stderr)
    for name, bench in BENCHES.items():
        if chosen and name not in chosen:
            continue
        try:
            for result in bench(name):
                print(result.line(), flush=True)
        # A missing Go is told as a test would be told: by pytest's own outcomes.
        except (_pytest.outcomes.Skipped, _pytest.outcomes.Failed) as error:
            print(Result(name, None, "", None, {"skipped": str(error)}).line(), flush=True)
        except Exception as error:
            print(Result(name, None, "", None, {"error": f"{type(error).__name__}: {error}"}).line(), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
