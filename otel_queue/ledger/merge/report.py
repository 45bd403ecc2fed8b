"""What a merge found, and what became of it."""

import json
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

Counts = Counter[tuple[str, str]]


@dataclass(slots=True)
class Report:
    """Counts by project and what. `merged` is what was recorded, or would be.

    `moving` changes too much to be judged now: the next run looks again. `beyond` is of days that are closed, where
    nothing can be recorded. `left` differs and was not merged. `held` and `changed` are by project: deliveries that the
    ledger has, and those of them whose status is another one. `reasons` say why nothing was merged without force.
    """

    is_dry: bool
    compared: Counter[str] = field(default_factory=Counter)
    merged: Counts = field(default_factory=Counter)
    moving: Counts = field(default_factory=Counter)
    beyond: Counts = field(default_factory=Counter)
    left: Counts = field(default_factory=Counter)
    held: Counter[str] = field(default_factory=Counter)
    changed: Counter[str] = field(default_factory=Counter)
    reasons: list[str] = field(default_factory=list)
    seconds: float = 0.0

    def end(self, seconds: float) -> "Report":
        """The report of a merge that took so long, without what was counted zero times."""
        self.seconds = seconds
        self.merged, self.moving, self.beyond, self.left = +self.merged, +self.moving, +self.beyond, +self.left
        return self

    @property
    def needs_force(self) -> bool:
        """Whether something is to be done that takes force: what has no row is forgotten, or more than is allowed."""
        return bool(self.reasons) or any(what.endswith(" without a row") for _, what in self.merged)

    @property
    def is_clean(self) -> bool:
        """Whether the ledger says now what all rows at rest say."""
        return not self.left and not self.reasons and not (self.is_dry and self.merged)

    def as_json(self) -> str:
        """With stable keys; what a dry run merged is what it would."""
        return json.dumps(
            {
                "dry_run": self.is_dry,
                "compared": dict(self.compared),
                "merged": _rows(self.merged),
                "moving": _rows(self.moving),
                "beyond": _rows(self.beyond),
                "left": _rows(self.left),
                "needs_force": self.reasons,
                "seconds": round(self.seconds, 1),
            },
            indent=2,
        )


def _rows(counts: Counts) -> list[dict[str, Any]]:
    return [{"project": project, "what": what, "count": count} for (project, what), count in sorted(counts.items())]
