"""`python -m tests.soak exactness --records 1000000`: runs that are too long for every day."""

import argparse
import dataclasses
import random
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.soak import seeding
from tests.soak.exactness import Plan, run
from tests.soak.whole.run import Plan as WholePlan
from tests.soak.whole.run import run as run_whole


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    runs = parser.add_subparsers(required=True, metavar="RUN")
    exactness = runs.add_parser("exactness", help="the ledger equals the oracle, through kills and cuts")
    exactness.add_argument("--records", type=int, default=1_000_000)
    exactness.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    exactness.add_argument("--writer", choices=("committed", "sync", "buffered"), default="committed")
    for name in ("kills", "redis_kills", "cuts"):
        default = next(field.default for field in dataclasses.fields(Plan) if field.name == name)
        exactness.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    seeding_run = runs.add_parser("seeding", help="a large database is seeded beside a worker, killed half way")
    seeding_run.add_argument("--deliveries", type=int, default=1_000_000)
    seeding_run.add_argument("--events", type=int, default=300_000)
    seeding_run.add_argument("--rate", type=int, default=2_000, help="records a second that come meanwhile")
    seeding_run.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    whole_run = runs.add_parser("whole", help="the whole pipeline under load, with a fault every minute")
    whole_run.add_argument("--minutes", type=float, default=60.0)
    whole_run.add_argument("--rate", type=int, default=600, help="records a second")
    whole_run.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    whole_run.add_argument("--json", type=Path, help="file that gets the figures as JSON")
    for each, runs_it in ((exactness, _exactness), (seeding_run, _seeding), (whole_run, _whole)):
        each.set_defaults(run=runs_it)
    options = vars(parser.parse_args())
    _say(f"seed {options['seed']}")
    chosen: Callable[..., int] = options.pop("run")
    return chosen(**options)


def _exactness(**options: Any) -> int:
    plan = Plan(**options)
    result = run(plan)
    for name, value in result.rows():
        _say(f"{name:<36} {value}")
    for line in result.wrong[:20]:
        _say(line)
    return int(bool(result.wrong or result.missing or (result.lost and plan.writer == "committed")))


def _seeding(**options: Any) -> int:
    result = seeding.run(seeding.Plan(**options))
    for name, value in result.rows():
        _say(f"{name:<40} {value}")
    for line in result.wrong[:20]:
        _say(line)
    return int(bool(result.wrong))


def _whole(**options: Any) -> int:
    result = run_whole(WholePlan(**options))
    for name, value in result.rows():
        _say(f"{name:<56} {value}")
    for line in result.broken:
        _say(f"BROKEN {line}")
    return int(bool(result.broken))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
