"""HTML that cannot be broken out of: text becomes markup in one place, and is escaped there."""

from html import escape
from typing import Final

_VOID: Final = frozenset({"meta", "link"})


class Html(str):
    """Markup. Made by the functions of this module alone: whatever else is text, and is escaped."""

    __slots__ = ()


def element(tag: str, *content: str, **attributes: str | float | bool | None) -> Html:
    """The element with what it holds; content that is not Html is escaped, and so is every attribute.

    An attribute that is None or False is left out, one that is True has no value. `_` in a name stands for `-`; a
    trailing one is dropped, for words that Python keeps for itself.
    """
    written = "".join(_attribute(name, value) for name, value in attributes.items())
    if tag in _VOID:
        return Html(f"<{tag}{written}>")
    return Html(f"<{tag}{written}>{together(*content)}</{tag}>")


def together(*content: str) -> Html:
    """The pieces one after another; those that are not Html are escaped."""
    return Html("".join(piece if isinstance(piece, Html) else escape(piece) for piece in content))


def literal(text: str) -> Html:
    """A style or script of this package as it is; never for anything that comes from outside."""
    return Html(text)


def _attribute(name: str, value: str | float | bool | None) -> str:
    if value is None or value is False:
        return ""
    name = name.rstrip("_").replace("_", "-")
    return f" {name}" if value is True else f' {name}="{escape(str(value))}"'
