"""The shipped alerts at a drill's pace: a real Prometheus evaluates them with every time in the rules divided.

A drill is a deployment of its own, told apart by its `cluster`, so that many faults can last at the same time.
"""

import contextlib
import json
import re
import subprocess
import sys
import threading
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.operations.rule_files import ALERTS, RECORDING
from tests.servers.process import temporary_directory, wait_until
from tests.servers.prometheus import PrometheusServer, prometheus_server

# 5m becomes 2.5 s, in which Prometheus scrapes five times.
FASTER: Final = 120
SCRAPE: Final = "500ms"
LONGEST_SECONDS: Final = 90.0
# Limits that are times themselves, which have to pass in a drill too, and one that goes by `domain.most_series`.
LIMITS: Final[Mapping[str, Mapping[str, str]]] = {
    "ConvoyEndpointFailing": {"* 1800": "* 15"},
    "OtelQueueSnapshotStale": {"> 60": "> 3", "> 300": "> 15"},
    "OtelQueueSeriesNearBudget": {"> 16000": "> 16"},
}
MOST_SERIES: Final = 20

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_DURATION: Final = re.compile(r"(\[|offset )(\d+)([smhd])")


def shorter(duration: str) -> str:
    """A duration of the rules as it is in a drill."""
    return f"{int(duration[:-1]) * _UNITS[duration[-1]] * 1000 // FASTER}ms"


def at_a_drills_pace(rules: Any) -> Any:
    """The content of a file of rules with shorter times, and nothing else changed but LIMITS."""
    for group in rules["groups"]:
        group["interval"] = shorter(group.get("interval", "1m"))
        for rule in group["rules"]:
            rule["expr"] = _DURATION.sub(lambda found: found[1] + shorter(found[2] + found[3]), rule["expr"])
            for limit, short in LIMITS.get(rule.get("alert"), {}).items():
                assert limit in rule["expr"], f"{rule['alert']} has no limit {limit} any more"
                rule["expr"] = rule["expr"].replace(limit, short)
            if "for" in rule:
                rule["for"] = shorter(rule["for"])
    return rules


class Alerts:
    """What fires in a Prometheus."""

    def __init__(self, prometheus: PrometheusServer) -> None:
        self.prometheus = prometheus

    def firing(self, name: str, **labels: str) -> list[dict[str, Any]]:
        """The alerts of that name that fire with at least these labels."""
        with urllib.request.urlopen(f"{self.prometheus.url}/api/v1/alerts", timeout=10) as response:
            every = json.load(response)["data"]["alerts"]
        wanted = labels | {"alertname": name}
        return [each for each in every if each["state"] == "firing" and wanted.items() <= each["labels"].items()]

    def fires(self, name: str, **labels: str) -> str:
        """Waits until it does; its description."""
        found = wait_until(lambda: self.firing(name, **labels), within=LONGEST_SECONDS, what=f"{name} fires")
        return str(found[0]["annotations"]["description"])

    def ends(self, name: str, **labels: str) -> None:
        """Waits until it does not fire any more."""
        wait_until(lambda: not self.firing(name, **labels), within=LONGEST_SECONDS, what=f"{name} ends")


@contextlib.contextmanager
def alerting(deployments: Mapping[str, Sequence[str]]) -> Iterator[Alerts]:
    """Scrapes the exporters (host:port) of each deployment, under the shipped rules at a drill's pace."""
    with temporary_directory() as directory:
        files = [directory / each.name for each in (RECORDING, ALERTS)]
        for shipped, file in zip((RECORDING, ALERTS), files, strict=True):
            rules = at_a_drills_pace(yaml.safe_load(shipped.read_text(encoding="utf-8")))
            file.write_text(yaml.safe_dump(rules), encoding="utf-8")
        targets = [{"targets": [*of], "labels": {"cluster": name}} for name, of in deployments.items()]
        job = {"job_name": "otel-queue", "honor_labels": True, "static_configs": targets}
        config = yaml.safe_dump({"rule_files": [str(file) for file in files], "scrape_configs": [job]})
        with prometheus_server(config, scrape_interval=SCRAPE) as prometheus:
            yield Alerts(prometheus)


@contextlib.contextmanager
def again_and_again(act: Callable[[], object]) -> Iterator[None]:
    """Does it five times a second, in a thread, as a process that goes on with its work."""
    stop = threading.Event()
    failed: list[Exception] = []

    def run() -> None:
        while not stop.wait(0.2):
            try:
                act()
            except Exception as error:
                failed.append(error)
                return

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not failed, failed


def otel_queue(*arguments: str, environment: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """`otel-queue ...` as an operator runs it."""
    return subprocess.run(
        [str(Path(sys.executable).parent / "otel-queue"), *arguments],
        env=dict(environment or {}),
        capture_output=True,
        text=True,
        timeout=60,
    )
