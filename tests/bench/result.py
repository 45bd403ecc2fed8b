"""One line of output."""

import json
from dataclasses import asdict, dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Result:
    """`value` in `unit`, to be at most `budget` (None: for information); `detail` holds what it was made of."""

    bench: str
    value: float | None
    unit: str
    budget: float | None
    detail: dict[str, Any] = field(default_factory=dict)

    def line(self) -> str:
        """The JSON object; `ok` is null where nothing was measured or nothing is promised."""
        known = self.value is not None and self.budget is not None
        ok = self.value <= self.budget if known and self.value is not None and self.budget is not None else None
        values = asdict(self) | {"ok": ok}
        order = ("bench", "value", "unit", "budget", "ok", "detail")
        return json.dumps({key: _rounded(values[key]) for key in order})


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    return value
