"""How the large tables are laid out: whole, or in partitions of a project and day."""

import re
from dataclasses import dataclass, field
from typing import Final

from otel_queue.database.rows import statement
from otel_queue.postgres.database import Reading

# FOR VALUES FROM ('P', '2026-11-24 00:00:00+00') TO (...); a quote in the project is written twice.
_BOUNDS: Final = re.compile(r"FROM \('((?:[^']|'')*)', '(\d{4})-(\d\d)-(\d\d)[ T]")


@dataclass(frozen=True, slots=True)
class Layout:
    """`days` are the days (YYYYMMDD) of each project that have a partition, be it of deliveries or of events."""

    is_partitioned: bool
    days: dict[str, set[str]] = field(default_factory=dict)


def read_layout(reading: Reading) -> Layout:
    """Asks the catalog. Raises ReadError."""
    is_partitioned, days = False, dict[str, set[str]]()
    for _, bounds in reading.fetch(statement("partitions")):
        if bounds is None:
            continue
        is_partitioned = True
        if found := _BOUNDS.search(bounds):
            project, *day = found.groups()
            days.setdefault(project.replace("''", "'"), set()).add("".join(day))
    return Layout(is_partitioned, days)
