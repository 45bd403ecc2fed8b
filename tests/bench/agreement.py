"""What both sides of a benchmark must say alike, so that their times can be compared."""

from collections.abc import Mapping
from typing import Any, Final

_SHOWN: Final = 5
_ABSENT: Final = "absent"


class DisagreementError(Exception):
    """The two sides do not say the same; the message has the values of both."""


def agree(ours: Mapping[Any, object], theirs: Mapping[Any, object], *, tolerance: float = 0.0) -> None:
    """Raises DisagreementError unless both have the same keys with the same values.

    Numbers are the same that differ by at most `tolerance`.
    """
    different = []
    for key in {**ours, **theirs}:
        mine, other = ours.get(key, _ABSENT), theirs.get(key, _ABSENT)
        if mine != other and not _is_near(mine, other, tolerance):
            different.append(f"{_words(key)}: ours {mine}, theirs {other}")
    if different:
        shown = "; ".join(different[:_SHOWN])
        more = f"; and {len(different) - _SHOWN} more" if len(different) > _SHOWN else ""
        raise DisagreementError(f"{len(different)} of {len({**ours, **theirs})} values differ: {shown}{more}")


def _is_near(mine: object, other: object, tolerance: float) -> bool:
    return isinstance(mine, int | float) and isinstance(other, int | float) and abs(mine - other) <= tolerance


def _words(key: object) -> str:
    return " ".join(map(str, key)) if isinstance(key, tuple | frozenset) else str(key)
