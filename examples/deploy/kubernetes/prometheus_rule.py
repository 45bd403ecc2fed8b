"""Prints examples/prometheus's rules as a PrometheusRule, for the Prometheus operator.

`python examples/deploy/kubernetes/prometheus_rule.py | kubectl apply -f -`
"""

import sys
from pathlib import Path
from typing import Any, Final

import yaml

_RULES: Final = Path(__file__).parents[2] / "prometheus"


def prometheus_rule() -> dict[str, Any]:
    """The groups of both files, recording rules first, in one object."""
    files = (_RULES / "recording.rules.yaml", _RULES / "alerts.rules.yaml")
    groups = [group for file in files for group in yaml.safe_load(file.read_text(encoding="utf-8"))["groups"]]
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "otel-queue", "namespace": "otel-queue"},
        "spec": {"groups": groups},
    }


if __name__ == "__main__":
    yaml.safe_dump(prometheus_rule(), sys.stdout, sort_keys=False, width=120)
