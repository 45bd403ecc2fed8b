"""One line of output."""

import json
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """`value` in `unit`, to be at most `budget` (None: for information); `detail` holds what it was made of.

    A broken one has no value: its two sides disagreed, or something was raised.
    """

    bench: str
    value: float | None
    unit: str
    budget: float | None
    detail: dict[str, Any] = field(default_factory=dict)
    is_broken: bool = False

    @property
    def ok(self) -> bool | None:
        """Whether it is within its budget; None where nothing was measured or nothing is promised."""
        if self.is_broken:
            return False
        return None if self.value is None or self.budget is None else self.value <= self.budget

    def line(self) -> str:
        """The JSON object."""
        order = ("bench", "value", "unit", "budget", "ok", "detail")
        return json.dumps({key: _rounded(getattr(self, key)) for key in order})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value
