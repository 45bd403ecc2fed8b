"""What a run says of the tests that this machine could not run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.requirements_gate import REQUIRE_ALL, Needs

ROOT = Path(__file__).parents[2]
_TESTS = """
import pytest
from tests.requirements_gate import Needs, missing

@pytest.fixture(scope="module")
def chromium():
    missing(Needs.CHROMIUM, "no chromium on PATH")

def test_one(chromium): ...
def test_two(chromium): ...
def test_other(): pytest.skip("the moon is full")
"""


@pytest.fixture
def tests(tmp_path: Path) -> Path:
    file = tmp_path / "test_some.py"
    file.write_text(_TESTS)
    return file


def run(tests: Path, *arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    own = {name: value for name, value in os.environ.items() if name not in (REQUIRE_ALL, "PYTEST_ADDOPTS")}
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "tests.requirements_gate",
        "-c",
        os.devnull,
        "-p",
        "no:cacheprovider",
    ]
    return subprocess.run(
        [*command, *arguments, str(tests)],
        env=own | {"PYTHONPATH": str(ROOT)} | environment,
        capture_output=True,
        text=True,
    )


def test_a_run_ends_with_the_promises_that_were_not_checked_and_what_to_install(tests: Path) -> None:
    done = run(tests, "-n", "1")
    assert done.returncode == 0, done.stdout
    block = done.stdout.partition("not checked on this machine")[2].splitlines()
    assert [" ".join(line.split()) for line in block[1:3]] == [
        '"the status page" 2 tests: apt-get install chromium',
        "skipped 1 tests: the moon is full",
    ]


def test_where_all_is_required_what_is_missing_fails(tests: Path) -> None:
    done = run(tests, "-n", "0", **{REQUIRE_ALL: "1"})
    assert done.returncode == 1
    assert "no chromium on PATH; needs apt-get install chromium (TESTS_REQUIRE_ALL=1 forbids skipping)" in done.stdout


def test_a_checkout_of_convoy_is_never_required_and_the_skip_says_how_to_give_one(tmp_path: Path) -> None:
    file = tmp_path / "test_real.py"
    file.write_text("from tests.convoy.program import convoy_source\n\ndef test_real(): convoy_source()\n")
    done = run(file, "-n", "0", **{REQUIRE_ALL: "1", "CONVOY_SOURCE": ""})
    assert done.returncode == 0, done.stdout
    assert "1 skipped" in done.stdout
    assert "make convoy CONVOY_SOURCE=DIR" in done.stdout


@pytest.mark.parametrize("need", Needs)
def test_a_promise_that_is_not_checked_is_named_in_the_readmes_own_words(need: Needs) -> None:
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").replace("**", "").split())
    assert need.promise in readme
