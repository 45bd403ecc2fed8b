"""docs/alerts.md, from the rules. `python -m tests.operations.alerts_page` writes it."""

from pathlib import Path
from typing import Final

import yaml

from tests.operations.rule_files import ALERTS, ROOT

PAGE: Final = ROOT / "docs" / "alerts.md"

_HEAD: Final = """\
# Alerts

Generated from [the rules](../examples/prometheus/alerts.rules.yaml); a test compares. They need
[the recording rules](../examples/prometheus/recording.rules.yaml) beside them, and work with one replica of
`otel-queue serve` or many. [examples/prometheus](../examples/prometheus/README.md) says how to load and change them.

What is switched off is absent, and its alerts are silent. Duplicates of records are normal and have no alert.

| severity | means |
|---|---|
| critical | somebody acts now |
| warning | somebody acts today |
| info | worth knowing before something is changed |
"""


def alerts_page() -> str:
    """The page's text."""
    groups = yaml.safe_load(ALERTS.read_text(encoding="utf-8"))["groups"]
    parts = [_HEAD]
    for group in groups:
        title = group["name"].removeprefix("otel-queue-").replace("-", " ").capitalize()
        parts.append(f"\n## {title}\n\n| alert | severity | after | it means |\n|---|---|---|---|\n")
        for rule in group["rules"]:
            name, notes = rule["alert"], rule["annotations"]
            runbook = notes["runbook_url"].removeprefix("docs/")
            parts.append(
                f"| [{name}]({runbook}) | {rule['labels']['severity']} | {rule['for']} | {_plain(notes['summary'])} |\n"
            )
    return "".join(parts)


def _plain(template: str) -> str:
    """A summary with its labels as words: `{{ $labels.queue }}` is *queue*."""
    words = template.replace("{{ $labels.", "*").replace(" }}", "*")
    assert "{{" not in words, f"the page shows labels only: {template}"
    return words


def main(page: Path = PAGE) -> None:
    """Writes the page."""
    page.write_text(alerts_page(), encoding="utf-8")


if __name__ == "__main__":
    main()
