"""`python -m tests.soak exactness --records 1000000`: runs that are too long for every day."""

import argparse
import dataclasses
import random
import sys

from tests.soak.exactness import Plan, run


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.soak", description=__doc__)
    runs = parser.add_subparsers(required=True, metavar="RUN")
    exactness = runs.add_parser("exactness", help="the ledger equals the oracle, through kills and cuts")
    exactness.add_argument("--records", type=int, default=1_000_000)
    exactness.add_argument("--seed", type=int, default=random.SystemRandom().randrange(1_000_000))
    exactness.add_argument("--writer", choices=("before_ack", "sync", "buffered"), default="before_ack")
    for name in ("kills", "redis_kills", "cuts"):
        default = next(field.default for field in dataclasses.fields(Plan) if field.name == name)
        exactness.add_argument(f"--{name.replace('_', '-')}", type=int, default=default)
    plan = Plan(**vars(parser.parse_args()))
    _say(f"seed {plan.seed}")
    result = run(plan)
    for name, value in result.rows():
        _say(f"{name:<36} {value}")
    for line in result.wrong[:20]:
        _say(line)
    return int(bool(result.wrong or result.missing or (result.lost and plan.writer == "before_ack")))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
