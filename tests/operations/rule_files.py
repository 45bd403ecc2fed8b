"""The shipped rules, and their unit tests, as data."""

from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from otel_queue.catalog import CATALOG
from tests.operations.promql import Selector

ROOT: Final = Path(__file__).parents[2]
PROMETHEUS: Final = ROOT / "examples" / "prometheus"
RECORDING: Final = PROMETHEUS / "recording.rules.yaml"
ALERTS: Final = PROMETHEUS / "alerts.rules.yaml"
UNIT_TESTS: Final = sorted(Path(__file__).parent.glob("*.test.yaml"))

# What Prometheus or the Collector adds to a series.
TARGET_LABELS: Final = frozenset({"instance", "job", "pod"})


class Rule(NamedTuple):
    """One rule; `name` is what it records or the alert's name."""

    name: str
    expression: str
    definition: dict[str, Any]


@cache
def recorded() -> list[Rule]:
    """The recording rules, in their order."""
    return [Rule(each["record"], each["expr"], each) for each in _rules(RECORDING)]


@cache
def alerts() -> list[Rule]:
    """The alerts, in their order."""
    return [Rule(each["alert"], each["expr"], each) for each in _rules(ALERTS)]


@cache
def unit_tests() -> list[dict[str, Any]]:
    """Every case of promtool's unit tests."""
    return [case for file in UNIT_TESTS for case in yaml.safe_load(file.read_text(encoding="utf-8"))["tests"]]


def unknown(selector: Selector) -> str | None:
    """What is wrong with a metric or the labels it is selected by; None if nothing is."""
    keys = _keys(selector.metric)
    if keys is None:
        return f"{selector.metric} is neither in the catalog nor recorded"
    strange = selector.labels - keys - TARGET_LABELS
    return f"{selector.metric} has no label {', '.join(sorted(strange))}" if strange else None


def level(name: str) -> frozenset[str]:
    """The labels that the name of a recorded series says it has; none for a whole deployment."""
    keys = {key for row in CATALOG.values() for key in row.keys}
    prefix = name.partition(":")[0]
    if prefix == "deployment":
        return frozenset()
    found = frozenset(prefix.split("_"))
    assert found <= keys, f"{name}: {prefix} are not keys of the catalog"
    return found


def _keys(metric: str) -> frozenset[str] | None:
    if metric == "up":
        return TARGET_LABELS
    if metric in {rule.name for rule in recorded()}:
        return level(metric)
    for suffix in ("", "_bucket", "_sum", "_count"):
        row = CATALOG.get(metric.removesuffix(suffix))
        if row is not None and metric.endswith(suffix) and (row.kind == "histogram") == bool(suffix):
            return frozenset(row.keys) | ({"le"} if suffix == "_bucket" else set())
    return None


def _rules(file: Path) -> Iterator[dict[str, Any]]:
    for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]:
        yield from group["rules"]
