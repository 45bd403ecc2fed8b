"""`otel-queue shadow`: is the ledger right, and which metrics are ready to change their source."""

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from otel_queue.cli import FINDING, FINE
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.table import table
from otel_queue.config import SOURCES
from otel_queue.errors import ConfigError

_MOST_SHOWN: Final = 20


@dataclass(frozen=True, slots=True)
class _Line:
    """One metric as it is shown; `entry` is an otel_queue.shadow.entry.Entry, or None without a comparison."""

    metric: str
    verdict: str
    reasons: Sequence[str]
    entry: Any


def add_command(commands: Any) -> None:
    """Adds `shadow` and what can be done with it."""
    parser = commands.add_parser("shadow", help="ledger against database: which metrics are ready to cut over")
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    report = actions.add_parser("report", help="what the exporters' comparisons have come to; exit 1 unless all ready")
    report.set_defaults(run=_report)
    now = actions.add_parser("compare", help="one comparison right now; exit 1 for a difference beyond tolerance")
    now.add_argument("--exact", action="store_true", help="allow no difference: for systems at rest")
    now.set_defaults(run=_compare)
    for action in (report, now):
        action.add_argument("--json", action="store_true", help="as JSON")
        add_settings(action, ("redis", "domain", "ledger", "postgres"))


def _report(options: argparse.Namespace) -> int:
    from otel_queue.shadow.connect import shadow_journal
    from otel_queue.shadow.tolerance import tolerances
    from otel_queue.shadow.verdict import gate_of, reasons_not_ready

    config = settings_of(options)
    rules = tolerances(config)
    if not rules:
        raise ConfigError(["domain.shadow: is none, so nothing is compared; set it to postgres or to ledger"])
    journal = shadow_journal(config).read()
    gate = gate_of(config)
    lines = []
    for metric, rule in rules.items():
        entry = journal.entries.get(metric)
        why = reasons_not_ready(entry, rule, gate, journal.time)
        lines.append(_Line(metric, "not ready" if why else "ready", why, entry))
    _show(lines, as_json=options.json)
    return FINDING if any(line.reasons for line in lines) else FINE


def _compare(options: argparse.Namespace) -> int:
    config = settings_of(options)
    if config.postgres.dsn is None:
        raise ConfigError(["postgres.dsn: is needed to compare; OTEL_QUEUE_POSTGRES_DSN sets it"])
    from otel_queue.shadow.entry import advance
    from otel_queue.shadow.once import compare_once
    from otel_queue.shadow.tolerance import tolerance

    once = compare_once(config, config.postgres.dsn, exactly=options.exact)
    lines = [_Line(metric, "not compared", [why], None) for metric, why in once.failures.items()]
    differs = False
    for metric, found in once.comparisons.items():
        beyond = sum(item.beyond for item in found.differences)
        differs |= beyond > 0
        entry, _ = advance(None, {}, found, once.legacy.get(metric, {}), tolerance(metric), once.time)
        entry = replace(entry, within_since=None, within=0)  # one look is no run
        why = [f"{beyond} series differ beyond tolerance"] if beyond else []
        lines.append(_Line(metric, "differs" if beyond else "within tolerance", why, entry))
    _show(sorted(lines, key=lambda line: line.metric), as_json=options.json)
    return FINDING if differs else FINE


def _show(lines: Sequence[_Line], *, as_json: bool) -> None:
    if as_json:
        print(json.dumps({"metrics": [_plain(line) for line in lines]}, indent=2))
        return
    head = ("METRIC", "VERDICT", "DRIFT", "NOT IN LEDGER", "NOT IN POSTGRES", "COMPARISONS", "WITHIN SINCE", "WHY")
    print(table(head, map(_row, lines)))
    worst = [(line.metric, item) for line in lines if line.entry for item in line.entry.worst]
    if worst:
        print(f"\nThe worst series of each metric, {_MOST_SHOWN} at most:")
        print(table(_WORST, _worst_rows(worst)))
    known = [(line.metric, *found) for line in lines for found in _known(line.entry)]
    if known:
        print("\nKnown differences, which are no drift:")
        print(table(("METRIC", "SERIES", "DIFFERENCE", "IN WORDS"), (_known_row(*found) for found in known)))


def _row(line: _Line) -> tuple[object, ...]:
    from otel_queue.shadow.verdict import moment

    entry, why = line.entry, "; ".join(line.reasons)
    if entry is None or entry.last is None:
        return line.metric, line.verdict, None, None, None, None, None, why
    since = None if entry.within_since is None else moment(entry.within_since)
    missing = (entry.missing.get(side, 0) for side in SOURCES)
    return line.metric, line.verdict, _number(entry.drift), *missing, entry.comparisons, since, why


_WORST: Final = ("METRIC", "LEDGER", "POSTGRES", "DIFFERENCE", "STANDS", "COMPARISONS", "SINCE", "SERIES")


def _worst_rows(worst: Iterable[tuple[str, Any]]) -> Iterable[tuple[object, ...]]:
    from otel_queue.shadow.verdict import moment

    shown: dict[str, int] = {}
    for metric, item in worst:
        shown[metric] = shown.get(metric, 0) + 1
        if shown[metric] > _MOST_SHOWN:
            continue
        ledger = str(_number(item.low)) if item.low == item.high else f"{_number(item.low)}..{_number(item.high)}"
        sides = [None if item.missing == side else value
                 for side, value in (("ledger", ledger), ("postgres", _number(item.postgres)))]  # fmt: skip
        series = " ".join(f"{key}={value}" for key, value in _labels(metric, item).items())
        since = moment(item.since)
        yield metric, *sides, _number(item.amount), item.stands, item.comparisons, since, series


def _labels(metric: str, item: Any) -> dict[str, str]:
    from otel_queue.catalog import CATALOG

    return dict(zip(CATALOG[metric].keys, item.labels, strict=True))


def _known(entry: Any) -> Iterable[tuple[str, str, int]]:
    if entry is None:
        return
    sides: tuple[tuple[str, Mapping[str, int]], ...] = (("ledger", entry.known), ("legacy", entry.legacy))
    for side, named in sides:
        for name, count in named.items():
            yield side, name, count


def _known_row(metric: str, side: str, name: str, count: int) -> tuple[object, ...]:
    return metric, count, f"{side}: {name}", _meaning(side, name)


def _meaning(side: str, name: str) -> str:
    from otel_queue.shadow.meanings import MEANINGS

    return MEANINGS.get((side, name), "a difference that a newer version named")


def _number(value: float) -> float | int:
    """Counts without their fraction, which is 0; ages to a tenth."""
    return int(value) if float(value).is_integer() else round(value, 1)


def _plain(line: _Line) -> dict[str, Any]:
    entry = line.entry
    found: dict[str, Any] = {"metric": line.metric, "verdict": line.verdict, "reasons": list(line.reasons)}
    if entry is None:
        return found | dict.fromkeys(_PLAIN) | {"worst": [], "known_differences": []}
    return found | {
        "drift": None if entry.last is None else entry.drift,
        "missing": None if entry.last is None else {side: entry.missing.get(side, 0) for side in SOURCES},
        "comparisons": entry.comparisons,
        "first": _moment(entry.first),
        "last": _moment(entry.last),
        "within_since": _moment(entry.within_since),
        "within_comparisons": entry.within,
        "skipped": dict(entry.skipped),
        "worst": [
            {
                "labels": _labels(line.metric, item),
                "ledger": None if item.missing == "ledger" else [item.low, item.high],
                "postgres": None if item.missing == "postgres" else item.postgres,
                "difference": item.amount,
                "missing": item.missing or None,
                "since": _moment(item.since),
                "comparisons": item.comparisons,
                "stands": item.stands,
            }
            for item in entry.worst
        ],
        "known_differences": [
            {"side": side, "difference": name, "series": count, "meaning": _meaning(side, name)}
            for side, name, count in _known(entry)
        ],
    }


_PLAIN: Final = (
    "drift", "missing", "comparisons", "first", "last", "within_since", "within_comparisons", "skipped",
)  # fmt: skip


def _moment(seconds: float | None) -> str | None:
    from otel_queue.shadow.verdict import moment

    return None if seconds is None else moment(seconds)
