"""`make simulate ARGS='--schedules 2000'`: plays schedules, counts what happened in them, and plants bugs."""

import argparse
import hashlib
import logging
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Final, NamedTuple

from tests.servers.redis import redis_server
from tests.simulation.planted import BUGS, Bug
from tests.simulation.schedule import Schedule, draw
from tests.simulation.shrinking import shrink
from tests.simulation.virtual_redis import Scripts
from tests.simulation.virtual_world import World

FAULTS: Final = (
    "dead", "hole", "full", "refuse", "damage", "lose", "crash", "exchange lost", "exchange unanswered", "exchange cut",
)  # fmt: skip


class Outcome(NamedTuple):
    """What became of some schedules: failures by seed, and the hash of each one's trace."""

    happened: Counter[str]
    failures: dict[int, str]
    hashes: list[str]


def play(schedule: Schedule, redis_port: int, scripts: Scripts) -> tuple[Counter[str], str, str]:
    """What happened, why it failed ("" if it did not), and the hash of its trace."""
    logging.disable()
    world = World(schedule, redis_port, scripts)
    failure = ""
    try:
        world.run()
    except Exception as error:  # whatever a part of the package raised is what was looked for
        failure = f"{type(error).__name__}: {error}"
    finally:
        logging.disable(logging.NOTSET)
    return world.happened, failure, world.hash


def play_seeds(seeds: Sequence[int], bug: Bug | None = None, *, stops_at_failure: bool = False) -> Outcome:
    """Plays the schedules of these seeds on a Redis of their own."""
    outcome = Outcome(Counter(), {}, [])
    with redis_server() as server, bug.code() if bug else BUGS[0].code():
        scripts = Scripts(bug.patches if bug else ())
        for seed in seeds:
            happened, failure, trace = play(draw(seed), server.port, scripts)
            outcome.happened.update(happened)
            outcome.hashes.append(trace)
            if failure:
                outcome.failures[seed] = failure
                if stops_at_failure:
                    break
    return outcome


def main() -> int:
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--schedules", type=int, default=200, help="how many (%(default)s)")
    parser.add_argument("--seed", type=int, default=1, help="of the first of them (%(default)s)")
    parser.add_argument("--show", action="store_true", help="print the steps of the first schedule and play it")
    parser.add_argument("--planted", action="store_true", help="plant each bug, and say in how many it is found")
    parser.add_argument("--jobs", type=int, default=len(os.sched_getaffinity(0)), help="processes (%(default)s)")
    options = parser.parse_args()
    seeds = range(options.seed, options.seed + options.schedules)
    if options.planted:
        return _plant(seeds, options.jobs)
    if options.show:
        _say("\n".join(map(str, draw(options.seed).steps)))
        seeds = seeds[:1]
    started = time.perf_counter()
    found = _in_parts(seeds, options.jobs)
    seconds = time.perf_counter() - started
    _print_happened(found.happened)
    digest = hashlib.sha256("".join(found.hashes).encode()).hexdigest()
    _say(f"{len(seeds)} schedules from seed {seeds[0]}, commit {_commit()}: {len(found.failures)} failed")
    _say(f"{len(seeds) / seconds:.1f} schedules a second; trace {digest[:32]}")
    for seed, failure in list(found.failures.items())[:3]:
        _explain(seed, failure)
    return 1 if found.failures else 0


def _in_parts(seeds: Sequence[int], jobs: int, bug: int | None = None) -> Outcome:
    """The seeds, shared out; hashes are in the order of the seeds."""
    size = max((len(seeds) + jobs - 1) // jobs, 1)
    parts = [seeds[start : start + size] for start in range(0, len(seeds), size)]
    whole = Outcome(Counter(), {}, [])
    with ProcessPoolExecutor(jobs) as pool:
        for part in pool.map(_play_part, parts, [bug] * len(parts)):
            whole.happened.update(part.happened)
            whole.failures.update(part.failures)
            whole.hashes.extend(part.hashes)
    return whole


def _play_part(seeds: Sequence[int], bug: int | None) -> Outcome:
    return play_seeds(seeds, None if bug is None else BUGS[bug])


def _plant(seeds: Sequence[int], jobs: int) -> int:
    is_found = True
    for number, bug in enumerate(BUGS):
        found = _in_parts(seeds, jobs, number)
        is_found = is_found and bool(found.failures)
        _say(f"{len(found.failures):6} of {len(seeds)}: {bug.what}")
    return 0 if is_found else 1


def _print_happened(happened: Counter[str]) -> None:
    for name in FAULTS:
        _say(f"{happened[name]:9} {name}")
    _say(f"{sum(happened.values()):9} steps, {happened['tell']} records told, {happened['read']} reads")


def _explain(seed: int, failure: str) -> None:
    """Shrinks a failing schedule and prints what is left of it."""
    with redis_server() as server:
        scripts = Scripts()
        smaller = shrink(draw(seed), lambda schedule: play(schedule, server.port, scripts)[1])
        failure = play(smaller, server.port, scripts)[1] or failure
    _say(f"\nseed {seed}: {failure[:2000]}\n{len(smaller.steps)} steps are enough:")
    _say("\n".join(map(str, smaller.steps)))


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def _commit() -> str:
    try:
        return subprocess.run(
            ["git", "describe", "--always", "--dirty"], capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


if __name__ == "__main__":
    sys.exit(main())
