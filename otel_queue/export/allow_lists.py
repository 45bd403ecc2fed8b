"""The catalog's allow lists as a Collector writes them: which metrics pass, and with which attribute keys.

A View keeps them in the process that records. A gateway keeps them again, for whoever reaches it: a worker of another
version, an application's own MeterProvider without our Views.
"""

import operator
import textwrap
from collections.abc import Mapping, Sequence
from typing import Final

from otel_queue.catalog import CATALOG, Row
from otel_queue.export.instruments import allowed_keys

_WIDTH: Final = 120

_PROCESSORS: Final = """\
  filter/catalog:
    error_mode: propagate
    metric_conditions:
      - >-
        not ContainsValue([
{names}
        ], metric.name)
      # They cannot be aggregated below, and no metric of the catalog is one.
      - metric.type == METRIC_DATA_TYPE_SUMMARY
  transform/catalog:
    error_mode: propagate
    metric_statements:
{statements}
"""


def collector_processors(attributes: Mapping[str, Sequence[str]]) -> str:
    """YAML of two processors, indented to stand under `processors:`; `filter/catalog` goes before `transform/catalog`.

    The first drops what is not in the catalog. The second leaves each metric the keys of its row, narrowed by
    `attributes` as its View is, and combines what becomes equal within one push as a View does: counts are summed,
    ages and flags keep the largest. To take the key away alone would leave one of them, whichever came last.
    """
    names = ", ".join(f'"{name}"' for name in CATALOG)
    return _PROCESSORS.format(
        names=textwrap.fill(names, _WIDTH, initial_indent=" " * 10, subsequent_indent=" " * 10),
        statements="\n".join(f"      - {_statement(row, allowed_keys(row, attributes))}" for row in CATALOG.values()),
    )


def _statement(row: Row, keys: Sequence[str]) -> str:
    function = "sum" if row.kind == "histogram" or row.combine is operator.add else "max"
    listed = ", ".join(f'"{key}"' for key in keys)
    return f'aggregate_on_attributes("{function}", [{listed}]) where metric.name == "{row.name}"'
