"""What the package costs before it does anything."""

import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence

from tests.bench.result import Result

IMPORT_BUDGET_MS = 150.0
HELP_BUDGET_MS = 300.0


def import_time(bench: str) -> Iterator[Result]:
    """A bare `import otel_queue`, beside starting Python for nothing."""
    yield _timed(bench, ("-c", "import otel_queue"), IMPORT_BUDGET_MS)


def help_time(bench: str) -> Iterator[Result]:
    """`otel-queue --help`, beside starting Python for nothing."""
    yield _timed(bench, ("-m", "otel_queue", "--help"), HELP_BUDGET_MS)


def _timed(bench: str, arguments: Sequence[str], budget: float) -> Result:
    nothing, taken = _milliseconds(("-c", "pass")), _milliseconds(arguments)
    return Result(bench, taken, "ms", budget, {"python_alone_ms": nothing})


def _milliseconds(arguments: Sequence[str]) -> float:
    taken = []
    for _ in range(7):
        started = time.perf_counter()
        subprocess.run([sys.executable, *arguments], check=True, capture_output=True)
        taken.append((time.perf_counter() - started) * 1e3)
    return statistics.median(taken)
