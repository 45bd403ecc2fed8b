"""Go programs that tests need: built once per version of their sources, kept in a cache.

`python -m tests.go_program` builds all of them beforehand; the Collector takes minutes the first time, and so does
Go's library for the race detector.
"""

import fcntl
import hashlib
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from tests.requirements_gate import Needs, missing

ROOT: Final = Path(__file__).parents[1]
CACHE_VARIABLE: Final = "TESTS_CACHE"
_BUILD_SECONDS: Final = 1_500.0
# What Go says when it is not the source that is at fault.
_UNREACHABLE: Final = re.compile(
    r"dial tcp|no such host|i/o timeout|403 Forbidden|connection refused|lookup disabled|requires go >="
)

ASYNQ_PEER: Final = ROOT / "tests" / "peer_go"
COLLECTOR: Final = ROOT / "tests" / "collector"
GO_WORKER: Final = ROOT / "examples" / "go-worker"
DEPLOY_CHECKS: Final = ROOT / "tests" / "deploy" / "checks_go"
# What Go says where it cannot look for races: without cgo, a C compiler and its headers, or on a rare processor.
_NO_RACES: Final = re.compile(
    r"-race (requires cgo|is (only|not) supported)|C compiler .* not found|fatal error: \w+\.h"
)
_NEEDS: Final = {
    ASYNQ_PEER: Needs.GO_ASYNQ,
    COLLECTOR: Needs.GO_COLLECTOR,
    GO_WORKER: Needs.GO_WORKER,
    DEPLOY_CHECKS: Needs.GO_DEPLOYMENT,
}


def build_go_program(sources: Path) -> Path:
    """The program of the module in `sources`; a test is skipped where there is no Go or no way to its modules."""
    program = _cache() / f"{sources.name}-{_digest(sources)}"
    if program.exists():
        return program
    program.parent.mkdir(parents=True, exist_ok=True)
    # Test processes that start together build once.
    with program.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not program.exists():
            unfinished = program.with_suffix(".unfinished")
            built = run_go(sources, "build", "-p", "2", "-trimpath", "-ldflags=-s -w", "-o", str(unfinished), ".")
            if built.returncode:
                raise AssertionError(f"go build failed in {sources}:\n{built.stderr[-4_000:]}")
            unfinished.rename(program)
    return program


def find_races(sources: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    """The module's own tests, under the race detector. The test is skipped where Go has no C compiler for it."""
    tested = run_go(sources, "test", "-race", "-p", "2", "-v", "./...", CGO_ENABLED="1", **environment)
    if tested.returncode and (without := _NO_RACES.search(tested.stdout + tested.stderr)):
        missing(Needs.GO_RACES, f"Go cannot look for races here: {without[0]}")
    return tested


def run_go(sources: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """One command of Go in a module. The test is skipped where Go or the module's dependencies cannot be had."""
    go = shutil.which("go") or missing(_NEEDS[sources], f"no go on PATH: {sources.name} cannot be built")
    done = subprocess.run(
        [go, *arguments],
        cwd=sources,
        env=os.environ
        | {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=readonly -buildvcs=false"}
        | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=_BUILD_SECONDS,
    )
    if done.returncode and _UNREACHABLE.search(done.stderr):
        missing(_NEEDS[sources], f"the modules of {sources.name} cannot be had: {done.stderr.strip()[-500:]}")
    return done


def _cache() -> Path:
    return Path(os.environ.get(CACHE_VARIABLE) or Path.home() / ".cache" / "otel-queue-tests")


def _digest(sources: Path) -> str:
    digest = hashlib.sha256()
    for source in sorted(path for path in sources.rglob("*") if path.is_file()):
        digest.update(str(source.relative_to(sources)).encode() + b"\0" + source.read_bytes() + b"\0")
    return digest.hexdigest()[:16]


if __name__ == "__main__":
    for module in _NEEDS:
        sys.stdout.write(f"{build_go_program(module)}\n")
    # Go keeps what it compiles for this. Where it cannot, the test that needs it says so.
    run_go(GO_WORKER, "test", "-race", "-p", "2", "-run", "^$", "./...", CGO_ENABLED="1")
