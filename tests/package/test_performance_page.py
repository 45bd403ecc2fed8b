"""docs/performance.md has a row for every benchmark but those of growth, and for none that is not there."""

import re

from tests.bench.__main__ import BENCHES
from tests.package.distributions import ROOT

# What they print has neither a budget nor a peer; docs/scale.md shows most of it.
_OF_GROWTH = {"scrape-queues", "ledger-read", "growth-queues", "growth-series"}


def test_every_benchmark_has_its_row() -> None:
    page = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")
    rows = set(re.findall(r"^\|[^|]+\| `([a-z0-9-]+)` \|", page, re.MULTILINE))
    assert rows == set(BENCHES) - _OF_GROWTH
