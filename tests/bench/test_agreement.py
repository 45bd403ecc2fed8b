"""Two sides agree if each has what the other has; what differs is shown with both values, a few at most."""

import pytest

from tests.bench.agreement import DisagreementError, agree


def test_equal_sides_and_numbers_within_the_tolerance_agree() -> None:
    agree({"a": 1, "b": None}, {"b": None, "a": 1})
    agree({"age": 10.0}, {"age": 10.5}, tolerance=0.5)


@pytest.mark.parametrize(
    ("ours", "theirs", "shown"),
    [
        ({"a": 1}, {"a": 2}, "1 of 1 values differ: a: ours 1, theirs 2"),
        ({"a": 1}, {}, "1 of 1 values differ: a: ours 1, theirs absent"),
        ({}, {("q", "size"): 0}, "1 of 1 values differ: q size: ours absent, theirs 0"),
        ({"a": 1, "b": None}, {"a": 1, "b": 0}, "1 of 2 values differ: b: ours None, theirs 0"),
    ],
)
def test_what_differs_is_shown(ours: dict[object, object], theirs: dict[object, object], shown: str) -> None:
    with pytest.raises(DisagreementError) as disagreement:
        agree(ours, theirs, tolerance=0.5)
    assert str(disagreement.value) == shown


def test_of_many_differences_a_few_are_shown() -> None:
    with pytest.raises(DisagreementError, match=r"^7 of 9 values differ: .*; and 2 more$"):
        agree(dict.fromkeys(range(9), 1), dict.fromkeys(range(7, 9), 1))
