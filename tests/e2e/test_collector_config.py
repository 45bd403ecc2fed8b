"""The configurations that are shipped pass the tools they are for."""

import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from tests.e2e.gateways import CONFIGS
from tests.go_program import COLLECTOR, build_go_program
from tests.servers.collector import validate
from tests.servers.prometheus import find_tool

COMBINATIONS = (
    ("agent.yaml",),
    ("gateway.yaml",),
    ("gateway.yaml", "gateway-remote-write.yaml"),
    ("gateway.yaml", "gateway-otlp.yaml"),
)
FIRST_AND_LAST = {
    "agent.yaml": ("memory_limiter", "otlp_http/gateway"),
    "gateway.yaml": ("memory_limiter", "prometheus"),
}

# The first build of the Collector takes minutes.
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("files", COMBINATIONS)
def test_the_collector_accepts_the_configuration(files: Sequence[str]) -> None:
    result = validate(*(CONFIGS / file for file in files))
    assert result.returncode == 0, result.stderr


def test_every_configuration_that_is_shipped_is_among_these() -> None:
    shipped = {file.name for file in CONFIGS.glob("*.yaml")} - {"prometheus.yaml"}
    assert shipped == {file for files in COMBINATIONS for file in files}


@pytest.mark.parametrize(
    ("known", "unknown"),
    [
        ("UnderscoreEscapingWithoutSuffixes", "UnderscoreEscaping"),
        ('aggregate_on_attributes("max"', 'aggregate_on_attributes("most"'),
        ("METRIC_DATA_TYPE_SUMMARY", "METRIC_DATA_TYPE_SUM_UP"),
    ],
)
def test_the_collector_would_refuse_what_it_does_not_know(tmp_path: Path, known: str, unknown: str) -> None:
    text = (CONFIGS / "gateway.yaml").read_text()
    broken = tmp_path / "gateway.yaml"
    broken.write_text(text.replace(known, unknown))
    assert validate(broken).returncode != 0


def printed(*files: str) -> str:
    """The configuration as the Collector sees it without any variable of ours."""
    return subprocess.run(
        [build_go_program(COLLECTOR), "print-config", *(f"--config={CONFIGS / file}" for file in files)],
        capture_output=True,
        text=True,
        check=True,
        env={},
    ).stdout


@pytest.mark.parametrize("files", COMBINATIONS)
def test_it_listens_and_connects_on_loopback_only_unless_told_otherwise(files: Sequence[str]) -> None:
    addresses = [
        line.split("endpoint:")[1].strip().removeprefix("http://")
        for line in printed(*files).splitlines()
        if "endpoint:" in line and '""' not in line
    ]
    assert len(addresses) >= 3
    assert all(address.startswith("127.0.0.1:") for address in addresses), addresses


@pytest.mark.parametrize("file", FIRST_AND_LAST)
def test_memory_is_limited_before_anything_else_is_done(file: str) -> None:
    pipeline = yaml.safe_load(printed(file))["service"]["pipelines"]["metrics"]
    assert (pipeline["processors"][0], *pipeline["exporters"]) == FIRST_AND_LAST[file]


def test_promtool_accepts_the_prometheus_configuration() -> None:
    checked = subprocess.run(
        [find_tool("promtool"), "check", "config", CONFIGS / "prometheus.yaml"], capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
