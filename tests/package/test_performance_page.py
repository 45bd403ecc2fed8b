"""docs/performance.md has a row for every benchmark but those of growth, and for none that is not there."""

import re

from tests.bench.__main__ import BENCHES
from tests.package.distributions import ROOT

# What they print has neither a budget nor a peer; docs/scale.md shows most of it.
_OF_GROWTH = {"scrape-queues", "ledger-read", "growth-queues", "growth-series"}


PAGE = (ROOT / "docs" / "performance.md").read_text(encoding="utf-8")


def test_every_benchmark_has_its_row() -> None:
    rows = set(re.findall(r"^\|[^|]+\| `([a-z0-9-]+)` \|", PAGE, re.MULTILINE))
    assert rows == set(BENCHES) - _OF_GROWTH


def test_what_is_compared_is_said_of_every_benchmark() -> None:
    cells = re.findall(r"^\| (`[^|]+`) \|", PAGE, re.MULTILINE)
    said = [name for cell in cells for name in re.findall(r"`([a-z0-9-]+)`", cell)]
    assert sorted(said) == sorted(set(BENCHES) - _OF_GROWTH)
