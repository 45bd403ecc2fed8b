"""The wheel and the sdist of this tree, and environments that hold an installed wheel and nothing of the tree."""

import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from tests.requirements_gate import Needs, missing

ROOT = Path(__file__).parent.parent.parent


class Distributions(NamedTuple):
    wheel: Path
    sdist: Path


def build(directory: Path) -> Distributions:
    """Both, built without a network by the backend that pyproject.toml names."""
    _run([sys.executable, "-m", "hatchling", "build", "-d", str(directory)], cwd=ROOT)
    [wheel], [sdist] = directory.glob("*.whl"), directory.glob("*.tar.gz")
    return Distributions(wheel, sdist)


class Environment:
    """A virtual environment. Its programs run outside of the tree, so that what they import is what is installed."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._bin = directory / "bin"
        self.program = self._bin / "otel-queue"
        """The command, where the wheel itself was installed here."""

    @property
    def python(self) -> Path:
        return self._bin / "python"

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> "subprocess.CompletedProcess[str]":
        """Python's, with these arguments."""
        return self._do([str(self.python), *arguments], environment or {})

    def pip(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """The tests' own pip, at work on this environment: to make each its own takes longer than what it installs."""
        return self._do([sys.executable, "-m", "pip", "--python", str(self.python), *arguments], {})

    def _do(self, command: list[str], environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command,
            cwd=self._directory,
            env=clean_environment() | environment,
            capture_output=True,
            text=True,
            timeout=60,
        )


def install(directory: Path, requirement: str, *, beneath: Environment | None = None) -> Environment:
    """A new environment with `requirement`, and with all that `beneath` has; skips without a package index."""
    _run([sys.executable, "-m", "venv", "--without-pip", str(directory)])
    environment = Environment(directory)
    if beneath is not None:
        [own], [below] = (list(each.python.parent.parent.glob("lib/python*/site-packages"))
                          for each in (environment, beneath))  # fmt: skip
        (own / "beneath.pth").write_text(f"{below}\n", encoding="utf-8")
    done = environment.pip("install", "--quiet", "--no-compile", "--retries", "1", "--timeout", "20", requirement)
    if "Retrying (Retry(" in done.stderr and done.returncode:
        missing(Needs.PACKAGE_INDEX, "no package index can be reached")
    assert done.returncode == 0, done.stderr
    return environment


def clean_environment() -> dict[str, str]:
    """This process's, without what would configure the programs under test or show them the tree."""
    ours = ("OTEL_", "PYTHON", "VIRTUAL_ENV", "COVERAGE")
    return {name: value for name, value in os.environ.items() if not name.startswith(ours)}


def _run(arguments: list[str], cwd: Path | None = None) -> None:
    done = subprocess.run(arguments, cwd=cwd, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(arguments)}\n{done.stdout}{done.stderr}"
