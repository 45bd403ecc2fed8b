"""What a reconciliation found, repaired, and left."""

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from otel_queue.seeding.repairs import Finding

# Of each kind of repair in a project, and of all of them.
_EXAMPLES_OF_A_KIND: Final = 5
_EXAMPLES: Final = 200


@dataclass(slots=True)
class Report:
    """Counts by project and kind. `left` is what could not be repaired, by project and why.

    `moving` are rows, and days, that change too much to be judged: the next run looks at them again. `beyond` are rows
    of days that the ledger has closed, where they cannot be, and `early_attempts` those of before its birth, where its
    counter starts.
    """

    is_dry: bool
    read: Counter[str] = field(default_factory=Counter)
    early_attempts: int = 0
    found: Counter[tuple[str, str]] = field(default_factory=Counter)
    moving: Counter[tuple[str, str]] = field(default_factory=Counter)
    beyond: Counter[tuple[str, str]] = field(default_factory=Counter)
    left: Counter[tuple[str, str]] = field(default_factory=Counter)
    examples: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def is_clean(self) -> bool:
        """Whether the ledger agrees now with all rows at rest."""
        return not self.left and not (self.is_dry and self.found)

    def take(self, findings: Iterable[Finding]) -> None:
        """Counts what was repaired, or would be, and keeps the first of each kind as examples."""
        for finding in findings:
            key = (finding.project, finding.what)
            self.found[key] += 1
            if self.found[key] <= _EXAMPLES_OF_A_KIND and len(self.examples) < _EXAMPLES:
                self.examples.append(finding)

    def as_json(self) -> str:
        """With stable keys; the repairs of a dry run are those that it would make."""
        return json.dumps(
            {
                "dry_run": self.is_dry,
                "read": dict(self.read),
                "early_attempts": self.early_attempts,
                "repairs": _rows(self.found, "what"),
                "moving": _rows(self.moving, "what"),
                "beyond": _rows(self.beyond, "what"),
                "left": _rows(self.left, "why"),
                "examples": [finding._asdict() for finding in self.examples],
                "seconds": round(self.seconds, 1),
            },
            indent=2,
        )


def _rows(counts: Counter[tuple[str, str]], name: str) -> list[dict[str, Any]]:
    return [{"project": project, name: what, "count": count} for (project, what), count in sorted(counts.items())]
