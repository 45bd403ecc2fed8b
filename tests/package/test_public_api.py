"""The public API is what `__all__` says, and docs/api.md describes all of it and nothing that is not there."""

import inspect
import re
from typing import get_args

import pytest

import otel_queue
from otel_queue.recorder.group import Kept
from tests.package.distributions import ROOT

_PAGE = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
_NAMES, _METHODS = (set(re.findall(r"`(\w+)`", "".join(re.findall(r"^\|([^|]+)\|", part, re.MULTILINE))))
                    for part in _PAGE.split("## What a recorder records"))  # fmt: skip
_DESCRIBED = [name for name in otel_queue.__all__ if name not in ("UNTOLD", "__version__")]


def test_the_page_lists_every_public_name_and_no_other() -> None:
    assert set(otel_queue.__all__) == _NAMES


def test_the_page_lists_every_method_of_the_recorder_and_no_other() -> None:
    methods = {name for name, _ in inspect.getmembers(otel_queue.Recorder, inspect.isfunction) if name[0] != "_"}
    assert _METHODS - {"Recorder"} == methods


def test_the_page_says_all_that_can_become_of_a_record() -> None:
    assert [kept for kept in get_args(Kept) if f"`{kept}`" not in _PAGE] == []


@pytest.mark.parametrize("name", _DESCRIBED)
def test_every_public_name_and_its_public_parts_say_what_they_are(name: str) -> None:
    thing = getattr(otel_queue, name)
    own = [(name, thing)]
    if inspect.isclass(thing):
        own += [(part, value) for part, value in vars(thing).items() if part[0] != "_" and inspect.isroutine(value)]
    for each, value in own:
        first = (value.__doc__ or "").partition("\n")[0]
        assert re.match(r"[A-Z].*[.;:]", first), f"{each}: {first!r}"


def test_a_name_that_is_not_there_is_an_error_as_of_any_module() -> None:
    with pytest.raises(AttributeError, match="'otel_queue' has no attribute 'Recorders'"):
        otel_queue.Recorders  # noqa: B018
    assert all(getattr(otel_queue, name) is not None for name in otel_queue.__all__)
