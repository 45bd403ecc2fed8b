"""The configurations that are shipped pass the tools they are for."""

import subprocess
from pathlib import Path

import pytest

from tests.go_program import COLLECTOR, build_go_program
from tests.servers.collector import validate
from tests.servers.prometheus import find_tool

CONFIGS = Path(__file__).parents[2] / "collector-config"

# The first build of the Collector takes minutes.
pytestmark = pytest.mark.timeout(900)


def test_the_collector_accepts_the_gateway_configuration() -> None:
    result = validate(CONFIGS / "gateway.yaml")
    assert result.returncode == 0, result.stderr


def test_the_collector_would_refuse_a_naming_rule_it_does_not_know(tmp_path: Path) -> None:
    text = (CONFIGS / "gateway.yaml").read_text()
    broken = tmp_path / "gateway.yaml"
    broken.write_text(text.replace("UnderscoreEscapingWithoutSuffixes", "UnderscoreEscaping"))
    assert validate(broken).returncode != 0


def test_the_gateway_listens_on_loopback_only_unless_told_otherwise() -> None:
    shown = subprocess.run(
        [build_go_program(COLLECTOR), "print-config", f"--config={CONFIGS / 'gateway.yaml'}"],
        capture_output=True,
        text=True,
        check=True,
        env={},
    ).stdout
    addresses = [line.split("endpoint:")[1].strip() for line in shown.splitlines() if "endpoint:" in line]
    assert len(addresses) == 3
    assert all(address.startswith("127.0.0.1:") for address in addresses), addresses


def test_promtool_accepts_the_prometheus_configuration() -> None:
    checked = subprocess.run(
        [find_tool("promtool"), "check", "config", CONFIGS / "prometheus.yaml"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
