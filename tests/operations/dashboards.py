"""The dashboard as its generator makes it, and the queries that Grafana would send for it."""

import importlib.util
import json
from collections.abc import Iterator, Mapping
from types import ModuleType
from typing import Any, Final, NamedTuple

from tests.operations.rule_files import ROOT

GRAFANA: Final = ROOT / "examples" / "grafana"
FILE: Final = GRAFANA / "otel-queue.json"
EVERYTHING: Final = {"job": ".*", "queue": ".*", "project": ".*", "__rate_interval": "1m"}


class Query(NamedTuple):
    """One query of one panel."""

    panel: str
    expression: str
    legend: str


def generator() -> ModuleType:
    """examples/grafana/dashboard.py, which is no package."""
    specification = importlib.util.spec_from_file_location("dashboard", GRAFANA / "dashboard.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def dashboard() -> dict[str, Any]:
    """The file's content."""
    found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    return found


def panels() -> list[dict[str, Any]]:
    """Every panel but the rows."""
    return [panel for panel in dashboard()["panels"] if panel["type"] != "row"]


def queries() -> Iterator[Query]:
    """Every query, with its variables as they are written."""
    for panel in panels():
        for target in panel["targets"]:
            yield Query(panel["title"], target["expr"], target["legendFormat"])


def sent(expression: str, variables: Mapping[str, str] = EVERYTHING) -> str:
    """The expression as Grafana sends it, with values in the place of its variables."""
    for name, value in variables.items():
        expression = expression.replace(f"${name}", value)
    assert "$" not in expression, f"a variable without a value: {expression}"
    return expression
