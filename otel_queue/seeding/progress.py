"""How far a long run is: a bar on a terminal, else a line of the log now and then."""

import logging
import sys
import time
from collections.abc import Callable
from types import TracebackType
from typing import Any, Final

_log: Final = logging.getLogger(__name__)

_LINE_SECONDS: Final = 10.0


class Progress:
    """Counts rows against `total`, which is an estimate. On stderr; without tqdm there is no bar, but lines."""

    def __init__(self, total: int, *, now: Callable[[], float] = time.monotonic) -> None:
        self._total = total
        self._now = now
        self._began = self._said = now()
        self._rows = 0
        self._bar = _bar(total) if sys.stderr.isatty() else None

    def __enter__(self) -> "Progress":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.close()

    def advance(self, rows: int, what: str) -> None:
        """So many more rows; `what` names them."""
        self._rows += rows
        if self._bar is not None:
            self._bar.set_description(what, refresh=False)
            self._bar.update(rows)
            return
        now = self._now()
        if now - self._said >= _LINE_SECONDS:
            self._said = now
            rate = self._rows / (now - self._began)
            _log.info("%s: %d rows of about %d read, %.0f a second", what, self._rows, self._total, rate)


def _bar(total: int) -> Any:
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm(total=total, unit="row", unit_scale=True, file=sys.stderr, dynamic_ncols=True)
