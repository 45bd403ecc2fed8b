"""The runbook: a section for each alert and no other, commands that exist, queries that are taken, links that lead."""

import re
import shlex
from pathlib import Path
from typing import Final

import pytest
import yaml

from otel_queue.cli import _parser
from tests.operations.alert_drills import LIMITS, at_a_drills_pace, shorter
from tests.operations.promql import selectors
from tests.operations.rule_files import ALERTS, RECORDING, ROOT, alerts, unknown
from tests.operations.test_rules import promtool

RUNBOOK: Final = ROOT / "docs" / "runbook.md"
TEXT: Final = RUNBOOK.read_text(encoding="utf-8")
DRILLS: Final = sorted(Path(__file__).parent.glob("test_*for_real.py"))
# What a Collector exports, which is not in our catalog.
OTHERS: Final = "otelcol_"


def blocks(language: str) -> list[str]:
    """The fenced blocks that begin with ```language."""
    found: list[tuple[str, list[str]]] = []
    is_open = False
    for line in TEXT.splitlines():
        if line.startswith("```"):
            is_open = not is_open
            if is_open:
                found.append((line[3:], []))
        elif is_open:
            found[-1][1].append(line)
    return ["\n".join(lines) for of, lines in found if of == language]


def commands() -> list[str]:
    return [line[2:] for block in blocks("") for line in block.splitlines() if line.startswith("$ ")]


def inline_commands() -> list[str]:
    """Commands in running text, without those that name an action alone."""
    return re.findall(r"`(otel-queue [^`]+)`", re.sub(r"^```.*?^```$", "", TEXT, flags=re.DOTALL | re.MULTILINE))


def queries() -> list[str]:
    return [line for block in blocks("promql") for line in block.splitlines()]


def anchor(heading: str) -> str:
    """As GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


def anchors(file: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", file.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    return {anchor(heading) for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE)}


def test_every_alert_has_its_section_and_every_section_its_alert() -> None:
    titles = {
        group["name"].removeprefix("otel-queue-").replace("-", " ").capitalize(): [
            rule["alert"] for rule in group["rules"]
        ]
        for group in yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    }
    found: dict[str, list[str]] = {}
    for level, heading in re.findall(r"^(##+) (.+)$", TEXT, re.MULTILINE):
        if level == "##":
            found[heading] = []
        else:
            found[list(found)[-1]].append(heading)
    assert {title: found.get(title) for title in titles} == titles
    assert {rule.definition["annotations"]["runbook_url"] for rule in alerts()} <= {
        f"docs/runbook.md#{each}" for each in anchors(RUNBOOK)
    }


@pytest.mark.parametrize("name", [rule.name for rule in alerts()])
def test_a_section_says_what_to_do_and_when_it_is_over(name: str) -> None:
    [section] = re.findall(rf"^### {name}\n(.*?)(?=^##|\Z)", TEXT, re.DOTALL | re.MULTILINE)
    assert re.search(r"\*\*(See and do|Do)\.\*\*", section) or "| do |" in section
    assert "**Over.**" in section


@pytest.mark.parametrize("name", [rule.name for rule in alerts()])
def test_an_alert_was_made_to_fire_by_its_fault_and_to_end(name: str) -> None:
    assert any(f'"{name}"' in file.read_text(encoding="utf-8") for file in DRILLS)


@pytest.mark.parametrize("command", [*commands(), *inline_commands()])
def test_a_command_is_one_that_the_command_line_takes(command: str) -> None:
    program, *arguments = shlex.split(command)
    if program == "otel-queue":
        assert _parser().parse_args(arguments).run
    else:
        assert program in ("redis-cli", "curl")


def test_every_kind_of_command_is_in_the_runbook() -> None:
    named = {" ".join(each.split()[1:3]) for each in commands() if each.startswith("otel-queue ")}
    assert {"check", "seed", "reconcile", "ledger init", "ledger check", "ledger repair", "shadow report"} <= named


def test_prometheus_takes_every_query(tmp_path: Path) -> None:
    rules = [{"record": f"query:{number}", "expr": query} for number, query in enumerate(queries())]
    assert len(rules) > 20
    file = tmp_path / "queries.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "runbook", "rules": rules}]}))
    promtool("check", "rules", file)


@pytest.mark.parametrize("query", queries())
def test_a_query_reads_what_exists_by_labels_that_it_has(query: str) -> None:
    read = {each for each in selectors(query) if not each.metric.startswith(OTHERS)}
    assert [fault for each in read if (fault := unknown(each))] == []


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\(([^)\s]*#[^)\s]+)\)", TEXT))))
def test_a_link_leads_to_a_heading(link: str) -> None:
    file, _, wanted = link.partition("#")
    assert wanted in anchors((RUNBOOK.parent / file).resolve() if file else RUNBOOK)


def test_metrics_in_the_text_exist() -> None:
    for name in set(re.findall(r"`((?:asynq|convoy|otel_queue)_[a-z_]+)(?:\{[^}]*\})?`", TEXT)):
        [selector] = selectors(name)
        assert unknown(selector) is None


_TIME: Final = re.compile(r"(\[|offset )\d+(?:ms|[smhd])")


@pytest.mark.parametrize("file", [RECORDING, ALERTS], ids=lambda file: file.name)
def test_a_drill_has_the_shipped_rules_with_shorter_times(file: Path) -> None:
    shipped, drilled = (yaml.safe_load(file.read_text(encoding="utf-8")) for _ in range(2))
    at_a_drills_pace(drilled)
    for group, of_drill in zip(shipped["groups"], drilled["groups"], strict=True):
        for rule, short in zip(group["rules"], of_drill["rules"], strict=True):
            if "for" in rule:
                assert short["for"] == shorter(rule["for"])
            if rule.get("alert") not in LIMITS:
                assert _TIME.sub(r"\1T", short["expr"]) == _TIME.sub(r"\1T", rule["expr"])
            assert re.findall(r"(?:\[|offset )\d+([a-z]+)", short["expr"]) == ["ms"] * len(_TIME.findall(rule["expr"]))


def test_a_time_of_a_drill_is_the_shipped_one_divided() -> None:
    assert (shorter("5m"), shorter("1h"), shorter("1d")) == ("2500ms", "30000ms", "720000ms")
