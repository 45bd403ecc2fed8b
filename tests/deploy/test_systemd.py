"""The unit, by systemd's own checks: there is no systemd to run it under."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from otel_queue.cli import USAGE
from otel_queue.config.settings import OtlpConfig
from tests.deploy.checks import DEPLOY
from tests.requirements_gate import Needs, missing

UNIT = DEPLOY / "systemd" / "otel-queue.service"
INSTALLED = "/opt/otel-queue/bin/otel-queue"
# In tenths; systemd calls 1.0 to 2.9 "ok", and a unit without any of it has 96.
MOST_EXPOSURE = "15"


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    program = shutil.which("systemd-analyze") or missing(Needs.SYSTEMD, "no systemd-analyze on PATH")
    return subprocess.run([program, *arguments], capture_output=True, text=True)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """The unit with the program where it is on this machine: systemd looks whether there is one."""
    text = UNIT.read_text(encoding="utf-8")
    assert text.count(f"ExecStart={INSTALLED} ") == 1
    program = Path(sys.executable).with_name("otel-queue")
    file = tmp_path / UNIT.name
    file.write_text(text.replace(f"ExecStart={INSTALLED} ", f"ExecStart={program} "), encoding="utf-8")
    return file


def test_systemd_takes_the_unit_without_a_word(unit: Path) -> None:
    done = analyze("verify", str(unit))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_systemd_would_name_a_directive_that_it_does_not_know(unit: Path) -> None:
    unit.write_text(unit.read_text(encoding="utf-8").replace("ProtectHome=", "ProtectHomes="), encoding="utf-8")
    assert "ProtectHomes" in analyze("verify", str(unit)).stderr


def test_little_of_the_machine_is_exposed_to_the_unit(unit: Path) -> None:
    done = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", str(unit))
    assert done.returncode == 0, done.stdout


def test_the_configuration_is_a_credential_and_a_wrong_one_is_not_tried_again() -> None:
    settings = dict(
        line.split("=", 1) for line in UNIT.read_text(encoding="utf-8").splitlines() if "=" in line and line[0] != "#"
    )
    name, _, file = settings["LoadCredential"].partition(":")
    assert file == "/etc/otel-queue/otel-queue.toml"
    assert settings["ExecStart"].split()[1:] == ["serve", "--config", f"%d/{name}"]
    assert settings["Restart"] == "always"
    assert settings["RestartPreventExitStatus"] == str(USAGE)
    assert float(settings["TimeoutStopSec"]) > OtlpConfig().shutdown_timeout_seconds
    assert "Environment" not in settings
