"""What a PromQL expression speaks of: names and labels, found without evaluating it."""

import re
from collections.abc import Iterator
from typing import Final, NamedTuple

_STRING: Final = re.compile(r'"(?:[^"\\]|\\.)*"')
_DURATION: Final = re.compile(r"\[[^\]]*\]|\boffset\s+-?\w+")
_GROUPING: Final = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")
_SELECTOR: Final = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^}]*)\})?(?!\s*\()(?![\w:])")
_LABEL: Final = re.compile(r"(\w+)\s*(?:=~|!~|!=|=)")
_WORDS: Final = frozenset({"and", "or", "unless", "bool", "inf", "nan", "offset"})


class Selector(NamedTuple):
    """One metric in an expression, and the labels that its matchers name."""

    metric: str
    labels: frozenset[str]


def selectors(expression: str) -> set[Selector]:
    """Every metric that an expression reads. Matchers without a metric name are not looked at; ours have one."""
    return set(_selectors(_GROUPING.sub(" ", _bare(expression))))


def groupings(expression: str) -> set[str]:
    """Every label that an expression groups or matches by."""
    return {
        label.strip() for listed in _GROUPING.findall(_bare(expression)) for label in listed.split(",") if label.strip()
    }


def _bare(expression: str) -> str:
    return _DURATION.sub(" ", _STRING.sub('""', expression))


def _selectors(expression: str) -> Iterator[Selector]:
    for found in _SELECTOR.finditer(expression):
        name, matchers = found.group(1), found.group(2) or ""
        if name.lower() not in _WORDS:
            yield Selector(name, frozenset(_LABEL.findall(matchers)))
