"""Numbers on the command line, within bounds: what is outside is a fault of usage."""

import argparse
from collections.abc import Callable
from typing import TypeVar

_N = TypeVar("_N", int, float)


def number(kind: type[_N], least: float, most: float, unit: str) -> Callable[[str], _N]:
    """Turns an argument's text into a number from `least` to `most`; argparse tells its user what was expected."""

    def parse(text: str) -> _N:
        try:
            value = kind(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise argparse.ArgumentTypeError(f"must be {least:.12g} to {most:.12g} {unit}, not {text}")
        return value

    return parse
