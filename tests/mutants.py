"""How many small changes to a room of the package its closest tests notice: `make mutants ARGS='redis_client'`.

mutmut makes the changes and runs the tests. Here are the tests that are closest to each room, the seeded sample and the
report. Everything happens in a copy, which goes in the end, with all processes that tests left behind.
"""

import argparse
import contextlib
import ctypes
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).parent.parent
FLOOR_PERCENT: Final = 85.0
SAMPLE: Final = 200
SEED: Final = 1

# The tests of a room, without those that start whole systems: a survivor runs all that reach the changed function.
CLOSEST: Final[Mapping[str, Sequence[str]]] = {
    "redis_client": (
        "tests/redis_client", "tests/inspector/test_connecting.py", "tests/inspector/test_deadlines.py",
        "tests/inspector/test_topologies.py",
    ),
    "asynq": (
        "tests/inspector/test_broken_data.py", "tests/inspector/test_configured.py",
        "tests/inspector/test_least_permissions.py", "tests/inspector/test_list_gone.py",
        "tests/inspector/test_memory_usage.py", "tests/inspector/test_names.py", "tests/inspector/test_one_moment.py",
        "tests/inspector/test_pending_since.py", "tests/inspector/test_queue_info.py",
        "tests/inspector/test_reads_only.py", "tests/inspector/test_round_trips.py", "tests/inspector/test_servers.py",
        "tests/inspector/test_tasks.py", "tests/unit/test_message.py", "tests/unit/test_families.py",
        "tests/recorder/test_payload.py",
    ),
    "export": (
        "tests/export", "tests/unit/test_otlp.py", "tests/unit/test_text.py", "tests/unit/test_instruments.py",
        "tests/unit/test_self_metrics.py", "tests/fuzz/test_texts.py", "tests/fuzz/test_found.py", "tests/contract",
        "tests/domain/test_compatibility.py",
    ),
    "ledger": (
        "tests/ledger/test_any_order.py", "tests/ledger/test_clocks.py", "tests/ledger/test_closing_days.py",
        "tests/ledger/test_cold_reads.py", "tests/ledger/test_contract.py", "tests/ledger/test_damage.py",
        "tests/ledger/test_histories.py", "tests/ledger/test_idle_reads.py", "tests/ledger/test_lanes.py",
        "tests/ledger/test_refusals.py", "tests/ledger/test_refused_projects.py", "tests/ledger/test_retention.py",
        "tests/ledger/test_scripts.py", "tests/ledger/test_settling.py", "tests/ledger/test_topologies.py",
        "tests/ledger/test_torn_file.py", "tests/ledger/test_unlisted_days.py", "tests/ledger/test_writers.py",
        "tests/unit/test_guard.py", "tests/export/test_ledger_lane.py", "tests/cli/test_ledger.py",
        "tests/fuzz/test_ledger_reads.py", "tests/fuzz/test_records.py",
    ),
}  # fmt: skip
KILLED: Final = ("killed", "timeout", "segfault")

_MUTMUT: Final = str(Path(sys.executable).with_name("mutmut"))
_PR_SET_CHILD_SUBREAPER: Final = 36

_CONFIG: Final = """
[tool.mutmut]
source_paths = ["otel_queue"]
only_mutate = ["otel_queue/{room}/*"]
also_copy = {copied}
pytest_add_cli_args = ["-p", "no:cacheprovider"]
pytest_add_cli_args_test_selection = {tests}
timeout_multiplier = 4.0
timeout_constant = 10.0
"""
_COPIED: Final = ("collector-config", "docs", "examples", "Makefile", "README.md", "CHANGELOG.md", "CONTRIBUTING.md")


def main() -> int:
    """0 where every room reaches the floor."""
    parser = argparse.ArgumentParser(prog="make mutants ARGS=...", description=__doc__)
    parser.add_argument("rooms", nargs="+", choices=sorted(CLOSEST), metavar=f"{{{','.join(CLOSEST)}}}")
    parser.add_argument("--sample", type=int, default=SAMPLE, help="mutants of each room, 0 for all (%(default)s)")
    parser.add_argument("--seed", type=int, default=SEED, help="which of them (%(default)s)")
    parser.add_argument("--only", nargs="*", default=(), help="these mutants, by name, instead of a sample")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ended by make or timeout(1), it clears up too
    scores = [_probe(room, arguments.sample, arguments.seed, arguments.only) for room in arguments.rooms]
    return 0 if min(scores) >= FLOOR_PERCENT else 1


def _probe(room: str, size: int, seed: int, only: Sequence[str]) -> float:
    """The percentage that was killed; prints it, and each survivor."""
    with _copy(room), _no_process_left():
        names = _names(room)
        random.Random(seed).shuffle(names)  # so that a smaller sample is the beginning of a larger one
        chosen = list(only) or names[: size or None]
        subprocess.run([_MUTMUT, "run", "--max-children", "1", *chosen], check=True, stdout=sys.stderr)
        statuses = _statuses(room, chosen)
        survivors = {name: _change(name) for name, status in statuses.items() if status not in KILLED}
    for name in [name for name, change in survivors.items() if _changes_nothing(*change)]:
        del survivors[name], statuses[name]
    for name, change in survivors.items():
        print(f"{statuses[name]}: {name}", *change, sep="\n", end="\n\n")
    score = 100.0 * (1.0 - len(survivors) / len(statuses))
    print(
        f"{room}: {len(statuses) - len(survivors)} of {len(statuses)} killed, {score:.1f} %; {FLOOR_PERCENT:g} % wanted"
    )
    print(f"{room}: sample of {len(chosen)} of {len(names)}, seed {seed}; {len(chosen) - len(statuses)} change nothing")
    return score


def _change(name: str) -> tuple[str, str]:
    """The lines that a mutant takes out and those that it puts in."""
    shown = subprocess.run([_MUTMUT, "show", name], capture_output=True, text=True, check=True).stdout
    lines = shown[shown.index("@@") :].splitlines()
    out, put_in = ("\n".join(line for line in lines if line.startswith(sign)) for sign in "-+")
    return out, put_in


def _changes_nothing(out: str, put_in: str) -> bool:
    """Whether only the case of a command to Redis differs, the type of a `cast`, or whether `zip` checks what is so by
    construction.
    """

    def essence(lines: str) -> str:
        without_strict = re.sub(r",\s*(strict=\w+)?\s*\)", ")", lines[1:])
        without_type = re.sub(r"\bcast\([^,()]+,", "cast(None,", without_strict)
        # Redis takes its commands in either case; a text of ours that is not all in capitals stays as it is.
        commands = {word.lower(): word for word in re.findall(r'"[A-Z]+"', out)}
        return re.sub(r'"[a-z]+"', lambda word: commands.get(word[0], word[0]), without_type)

    return essence(out) == essence(put_in)


@contextlib.contextmanager
def _copy(room: str) -> Iterator[None]:
    """Works in a copy of what the tests need, which is deleted afterwards; so are the temporary files of the tests."""
    with tempfile.TemporaryDirectory(prefix="oq-m-") as directory:
        copy = Path(directory, "otel-queue")
        ignored = shutil.ignore_patterns("__pycache__", "mutants")
        for name in ("otel_queue", "tests", *_COPIED):
            if (ROOT / name).is_dir():
                shutil.copytree(ROOT / name, copy / name, ignore=ignored)
            else:
                shutil.copy2(ROOT / name, copy / name)
        tests = [test for test in CLOSEST[room] if (copy / test).exists()]
        config = _CONFIG.format(room=room, copied=json.dumps(_COPIED), tests=json.dumps(tests))
        (copy / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text() + config)
        temporary = Path(directory, "t")
        temporary.mkdir()
        os.environ["TMPDIR"] = str(temporary)
        with contextlib.chdir(copy):
            yield


def _names(room: str) -> list[str]:
    """All mutants of the room, by mutmut's names."""
    from mutmut.mutation.file_mutation import mutate_file_contents
    from mutmut.utils.format_utils import get_mutant_name

    return [
        get_mutant_name(path, name)
        for path in sorted(Path("otel_queue", room).rglob("*.py"))
        for name in mutate_file_contents(str(path), path.read_text()).mutant_names
    ]


def _statuses(room: str, chosen: Sequence[str]) -> dict[str, str]:
    from mutmut.stats import status_by_exit_code

    codes: dict[str, int | None] = {}
    for file in Path("mutants/otel_queue", room).rglob("*.meta"):
        codes |= json.loads(file.read_text())["exit_code_by_key"]
    return {name: status_by_exit_code[codes[name]] for name in chosen}


@contextlib.contextmanager
def _no_process_left() -> Iterator[None]:
    """Ends what was started here and not ended: a test that was killed leaves its servers."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # orphans become ours instead of init's
    try:
        yield
    finally:
        while children := Path(f"/proc/self/task/{os.getpid()}/children").read_text().split():
            for child in map(int, children):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)


if __name__ == "__main__":
    sys.exit(main())
