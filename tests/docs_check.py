"""Compares what is generated with its source, and every relative link in the docs with the tree.

`python -m tests.docs_check` reports, `--write` regenerates.
"""

import re
import subprocess
import sys
from pathlib import Path

from otel_queue.catalog import CATALOG
from otel_queue.cli.catalog import markdown
from otel_queue.config.checks import MOST_SECONDS
from otel_queue.config.settings import SECTIONS, all_settings
from otel_queue.config.standard_variables import STANDARD_VARIABLES
from otel_queue.export.allow_lists import collector_processors
from tests.operations.alerts_page import alerts_page

ROOT = Path(__file__).parent.parent
_LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)")

_CONFIGURATION_HEAD = f"""\
# Configuration

Generated from the settings by `make docs`; `make check` compares. Precedence: flag, environment, file, default.
The file is TOML, named by `--config` or `OTEL_QUEUE_CONFIG`; there is
[an example with every section](../examples/otel-queue.toml). All faults are reported together, and
`otel-queue check` says what works. Secrets have no flag: everybody on a machine can read its command lines.
No setting in seconds may be more than {MOST_SECONDS:,} (23 days).
"""

_CONFIGURATION_TAIL = """
## [domain.metrics.NAME]

Says for one domain metric what `[domain]` says for all: `source`, `fallback`, `shadow`; and by how much its shadow may
differ: `absolute`, `relative` (a share of the value), `age_seconds`. A counter has no fallback: while its source fails
it is absent, since another source's count is not its own.

```toml
[domain.metrics.convoy_event_queue_total]
source = "postgres"
shadow = "ledger"
absolute = 5
```

## [attributes]

Maps a metric to the attribute keys it keeps, fewer than [its row](metrics.md) has: the metric's View drops the
rest. Counts that become equal are summed, ages and flags keep the largest.

```toml
[attributes]
asynq_tasks_enqueued_total = ["queue"]
```

## OpenTelemetry's own variables

`load_config` reads them once, for `serve` and for workers, and none is ignored in silence. One that is honoured and has
a value it cannot have is refused, and so is one that says what cannot be done: nothing starts, and a sentence says why.
One without effect is told, in a line of the log and by `otel-queue check`. So is a name that is not
known here. Where a `METRICS_` stands in brackets the variable has a second name with it, for metrics alone, which wins.

{variables}
Variables of traces, logs and profiles are your application's, and so are limits of attributes (`OTEL_ATTRIBUTE_...`),
which metrics do not have. The SDK and its exporters themselves read Python's own (`OTEL_PYTHON_...`).

## Web config file

`server.web_config_file` is in the form that Prometheus exporters use, for example:

```yaml
tls_server_config:
  cert_file: server.crt
  key_file: server.key
basic_auth_users:
  prometheus: $2y$10$...   # htpasswd -nBC 10 "" | tr -d ':\\n'
```

With it every path asks for credentials, health included.
"""

_GATEWAY = "collector-config/gateway.yaml"
_GATEWAY_MARK = "  # Generated from otel_queue/catalog.py by `make docs`; `make check` compares.\n"


def configuration() -> str:
    """The text of docs/configuration.md."""
    parts = [_CONFIGURATION_HEAD]
    for section, kind in SECTIONS.items():
        introduction = (kind.__doc__ or "").partition(": ")[2]
        parts.append(f"\n## [{section}]\n\n{introduction[:1].upper()}{introduction[1:]}\n")
        parts.append("\n| setting | environment | flag | default | meaning |\n|---|---|---|---|---|\n")
        parts += [
            f"| `{item.field.name}` | `{item.variable}` | {f'`{item.flag}`' if item.flag else '-'} "
            f"| {_default(item.field.default)} | {item.help} |\n"
            for item in all_settings()
            if item.section == section
        ]
    return "".join(parts) + _CONFIGURATION_TAIL.replace("{variables}", standard_variables())


def standard_variables() -> str:
    """The table of OpenTelemetry's own variables."""
    lines = ["| variable | here | meaning |\n|---|---|---|\n"]
    for row in STANDARD_VARIABLES:
        name = row.name.replace("OTLP_", "OTLP_[METRICS_]") if row.of_signal else row.name
        lines.append(f"| `{name}` | {row.fate} | {row.said} |\n")
    return "".join(lines)


def _default(value: object) -> str:
    if value is None:
        return "-"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def gateway() -> str:
    """The text of collector-config/gateway.yaml: its own up to a line that says so, then the catalog's allow lists."""
    own = (ROOT / _GATEWAY).read_text(encoding="utf-8").partition(_GATEWAY_MARK)[0]
    return own + _GATEWAY_MARK + collector_processors({})


GENERATED = {
    "docs/metrics.md": lambda: markdown(CATALOG.values()),
    "docs/configuration.md": configuration,
    "docs/alerts.md": alerts_page,
    _GATEWAY: gateway,
}


def faults() -> list[str]:
    """One line for each file that is not what it should be."""
    found = [
        f"{name} is not what its source says; run `make docs`"
        for name, text in GENERATED.items()
        if not (ROOT / name).is_file() or (ROOT / name).read_text(encoding="utf-8") != text()
    ]
    for file in _tracked_markdown():
        found += [
            f"{file.relative_to(ROOT)}: link to {target}, which does not exist"
            for target in _LINK.findall(file.read_text(encoding="utf-8"))
            if not (file.parent / target).exists()
        ]
    return found


def _tracked_markdown() -> list[Path]:
    if not (ROOT / ".git").exists():  # an unpacked sdist, perhaps on a machine without git
        return [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("examples/**/*.md")]
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    return [ROOT / name for name in listed.stdout.splitlines() if (ROOT / name).is_file()]


def main(arguments: list[str]) -> int:
    """Writes, or checks and returns 1 for a fault."""
    if "--write" in arguments:
        for name, text in GENERATED.items():
            (ROOT / name).write_text(text(), encoding="utf-8")
        return 0
    found = faults()
    for fault in found:
        print(fault, file=sys.stderr)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
