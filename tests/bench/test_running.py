"""A run of benchmarks tells by its exit code whether each row held: 1 if one missed or broke, 2 for an unknown name."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.bench.__main__ import main
from tests.bench.agreement import agree
from tests.bench.result import Result
from tests.requirements_gate import REQUIRE_ALL, Needs, missing

Bench = Callable[[str], Iterator[Result]]


@pytest.fixture
def benches(monkeypatch: pytest.MonkeyPatch) -> dict[str, Bench]:
    """The benchmarks that there are, for the test to fill."""
    there: dict[str, Bench] = {}
    monkeypatch.setattr("tests.bench.__main__.BENCHES", there)
    return there


def measured(value: float, budget: float | None) -> Bench:
    return lambda bench: iter([Result(bench, value, "ms", budget)])


def breaks(bench: str) -> Iterator[Result]:
    agree({"pending": 3}, {"pending": 4})
    yield Result(bench, 1.0, "ms", 2.0)


def printed(capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def test_rows_that_hold_and_rows_without_a_budget_are_fine(
    benches: dict[str, Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    benches |= {"within": measured(1.0, 1.0), "told": measured(5.0, None)}
    assert main([]) == 0
    assert [row["ok"] for row in printed(capsys)] == [True, None]


def test_a_row_that_misses_its_budget_is_a_finding(
    benches: dict[str, Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    benches |= {"misses": measured(1.1, 1.0), "within": measured(0.5, 1.0)}
    assert main([]) == 1
    assert [(row["bench"], row["ok"]) for row in printed(capsys)] == [("misses", False), ("within", True)]


def test_a_row_that_was_not_chosen_does_not_count(benches: dict[str, Bench]) -> None:
    benches |= {"misses": measured(1.1, 1.0), "within": measured(0.5, 1.0)}
    assert main(["within"]) == 0


def test_a_row_that_breaks_is_a_finding_and_tells_why_and_the_next_one_runs(
    benches: dict[str, Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    benches |= {"breaks": breaks, "within": measured(0.5, 1.0)}
    assert main([]) == 1
    broken, within = printed(capsys)
    assert (broken["bench"], broken["value"], broken["ok"]) == ("breaks", None, False)
    assert "pending: ours 3, theirs 4" in broken["detail"]["error"]
    assert within["ok"] is True


def test_an_unknown_name_runs_nothing_and_lists_those_that_are_known(
    benches: dict[str, Bench], capsys: pytest.CaptureFixture[str]
) -> None:
    benches |= {"within": measured(0.5, 1.0)}
    assert main(["within", "nope"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "'nope'" in err
    assert "within" in err


def test_what_a_machine_lacks_is_skipped_unless_nothing_may_be_missing(
    benches: dict[str, Bench], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    benches |= {"needs-go": lambda _: missing(Needs.GO_ASYNQ, "no go on PATH")}
    monkeypatch.delenv(REQUIRE_ALL, raising=False)
    assert main([]) == 0
    monkeypatch.setenv(REQUIRE_ALL, "1")
    assert main([]) == 1
    skipped, failed = printed(capsys)
    assert (skipped["ok"], skipped["detail"]) == (None, {"skipped": "GO_ASYNQ: no go on PATH"})
    assert failed["ok"] is False
    assert "no go on PATH" in failed["detail"]["error"]
