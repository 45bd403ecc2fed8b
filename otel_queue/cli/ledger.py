"""`otel-queue ledger`: begin it, look at it, check and repair it, merge rows, let days go, estimate its series."""

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from typing import Any, Final

from otel_queue.cli import FINDING, FINE, merge
from otel_queue.cli.options import add_settings, settings_of
from otel_queue.cli.table import table
from otel_queue.plural import number_of

_STATUS_OF_EVENTS: Final = "event"
_UNLISTED: Final = "unlisted"


def add_command(commands: Any) -> None:
    """Adds `ledger` and what can be done with it."""
    parser = commands.add_parser(
        "ledger", help="begin, show, check, repair, merge, expire, settle, estimate the ledger"
    )
    actions = parser.add_subparsers(metavar="ACTION", required=True)
    for name, run, help_text in (
        ("init", _init, "begin the ledger, or change for how long later ids are tracked"),
        ("show", _show, "projects with their days and counts"),
        ("check", _check, "compare counts with what is tracked; exit 1 for a difference"),
        ("repair", _repair, "count days with a difference anew"),
        ("expire", _expire, "take days out of the counts"),
        ("settle", _settle, "end what is no longer tracked; `serve` does it by itself"),
        ("estimate", _estimate, "series that a set of labels would cost"),
    ):
        action = actions.add_parser(name, help=help_text)
        action.set_defaults(run=run)
        if name in ("show", "check", "estimate"):
            action.add_argument("--json", action="store_true", help="as JSON")
        if name == "estimate":
            action.add_argument("--keys", metavar="KEY,KEY", help="count series with only these attribute keys")
        if name == "init":
            for flag, what in (
                ("--track-days", "days for which deliveries and events are known one by one; 30 if not said"),
                ("--attempt-days", "days for which attempts' ids are remembered; 7 if not said"),
                ("--most-groups", "hard cap on sets of labels per project; 100000 if not said"),
            ):
                action.add_argument(flag, type=_at_least_one, metavar="N", help=what)
            action.add_argument(
                "--max-skew-seconds", type=_seconds, default=5.0, metavar="S",
                help="how far ahead of Redis a record's time may be, for good; default 5",
            )  # fmt: skip
        if name not in ("init", "estimate"):
            action.add_argument("--project", help="only this project")
        if name == "expire":
            action.add_argument("--through", required=True, metavar="YYYYMMDD", help="this UTC day and all before")
        add_settings(action, ("redis", "domain", "ledger") if name == "estimate" else ("redis", "ledger"))
    merge.add_action(actions)


def _at_least_one(text: str) -> int:
    if not 1 <= (number := int(text)) < 1_000_000_000:
        raise argparse.ArgumentTypeError("must be 1 or more, and less than 1000000000")
    return number


def _seconds(text: str) -> float:
    if not 0 <= (seconds := float(text)) < 86_400:
        raise argparse.ArgumentTypeError("must be from 0 to 86400")
    return seconds


def _upkeep(options: argparse.Namespace) -> Any:
    from otel_queue.ledger.connect import ledger_upkeep

    return ledger_upkeep(settings_of(options))


def _snapshot(options: argparse.Namespace) -> Any:
    from otel_queue.ledger.connect import ledger_reader

    return ledger_reader(settings_of(options), is_patient=True).snapshot()


def _projects(upkeep: Any, options: argparse.Namespace) -> list[str]:
    return [options.project] if options.project else upkeep.projects()


def _init(options: argparse.Namespace) -> int:
    from otel_queue.ledger.contract import Rule

    upkeep = _upkeep(options)
    asked = {name: value for name in ("track_days", "attempt_days", "most_groups") if (value := getattr(options, name))}
    has_begun = upkeep.begin(Rule(**asked), int(options.max_skew_seconds * 1e6))
    print("the ledger begins now" if has_begun else "the ledger has begun already")
    contract = upkeep.contract()
    if asked and not has_begun:
        contract = upkeep.add_rule(replace(contract.rules[-1], **asked))
    for rule in contract.rules:
        tracked, attempts = number_of(rule.track_days, "day"), number_of(rule.attempt_days, "day")
        print(
            f"ids from {_first_day(rule.from_day)}: deliveries and events are tracked for {tracked}, attempts for "
            f"{attempts}; at most {rule.most_groups} sets of labels a project"
        )
    return FINE


def _first_day(day: str) -> str:
    from otel_queue.ledger.contract import FROM_THE_FIRST

    return "the first day" if day == FROM_THE_FIRST else day


def _show(options: argparse.Namespace) -> int:
    snapshot = _snapshot(options)
    rows = [
        {
            "project": project.project,
            "day": name,
            "deliveries": sum(day.deliveries.values()),
            "events": sum(day.events.values()),
            "processing": len(day.oldest_us),
            "attempts": sum(project.attempts.values()) if name == "attempts" else None,
            "approximate": name <= project.approximate or (name == "settled" and project.approximate != ""),
        }
        for project in snapshot.projects
        if options.project in (None, project.project)
        for name, day in sorted(project.days.items())
    ]
    if options.json:
        print(json.dumps(rows, indent=2))
    else:
        head = ("PROJECT", "DAY", "DELIVERIES", "EVENTS", "GROUPS IN PROCESSING", "ATTEMPTS EVER", "APPROXIMATE")
        print(table(head, (tuple(row.values()) for row in rows)))
    if not snapshot.failures:
        return FINE
    lost = ", ".join(f"{reason} ({count})" for reason, count in sorted(snapshot.failures.items()))
    print(f"otel-queue: parts of the ledger cannot be read: {lost}; see docs/runbook.md", file=sys.stderr)
    return FINDING


def _check(options: argparse.Namespace) -> int:
    upkeep = _upkeep(options)
    found = [finding for project in _projects(upkeep, options) for finding in _findings(upkeep, project)]
    if options.json:
        print(json.dumps(found, indent=2))
    elif found:
        rows = (tuple({**finding, "what": _what(finding["what"])}.values()) for finding in found)
        print(table(("PROJECT", "DAY", "GROUP", "WHAT", "COUNTED", "TRACKED"), rows))
    else:
        print("every count is what its tracked ids add up to")
    return FINDING if found else FINE


def _findings(upkeep: Any, project: str) -> Iterator[dict[str, Any]]:
    """What is wrong with a project's days; nothing is compared in those that are not listed."""
    for day in upkeep.unlisted(project):
        yield {"project": project, "day": day, "group": None, "what": _UNLISTED, "counted": None, "tracked": None}
    for difference in upkeep.check(project):
        yield asdict(difference)


def _what(field: str) -> str:
    from otel_queue.lifecycle import STATUSES

    if field == _UNLISTED:
        return field
    return _STATUS_OF_EVENTS if field == "e" else STATUSES[int(field) - 1]


def _repair(options: argparse.Namespace) -> int:
    upkeep = _upkeep(options)
    projects = _projects(upkeep, options)
    listed = [(project, day) for project in projects for day in upkeep.list_again(project)]
    for project, day in listed:
        print(f"{project} {day}: listed again")
    days = {(item.project, item.day) for project in projects for item in upkeep.check(project)}
    left = 0
    for project, day in sorted(days):
        repaired = upkeep.repair(project, day)
        left += not repaired
        print(f"{project} {day}: {'counted anew' if repaired else 'changed meanwhile; run it again'}")
    if not days and not listed:
        print("nothing to repair")
    return FINDING if left else FINE


def _expire(options: argparse.Namespace) -> int:
    from otel_queue.ledger.upkeep import close_each

    upkeep = _upkeep(options)
    projects = _projects(upkeep, options)
    expired = close_each(projects, lambda project: upkeep.expire(project, options.through))
    return _tell(expired, "expired", lambda days: number_of(days, "day"))


def _settle(options: argparse.Namespace) -> int:
    upkeep = _upkeep(options)
    settled = upkeep.settle_each(_projects(upkeep, options))
    return _tell(
        settled, "settled", lambda ended: f"{number_of(ended.days, 'day')}, {number_of(ended.undated, 'undated id')}"
    )


def _tell(each: Iterator[tuple[str, Any]], done: str, words: Callable[[Any], str]) -> int:
    from otel_queue.errors import ReadError, WriteError

    status = FINE
    for project, ended in each:
        if isinstance(ended, ReadError | WriteError):
            print(f"otel-queue: {project}: not {done} ({ended.reason}): {ended}", file=sys.stderr)
            status = FINDING
        else:
            print(f"{project}: {words(ended)} {done}")
    return status


def _estimate(options: argparse.Namespace) -> int:
    from otel_queue.catalog import CATALOG
    from otel_queue.export.instruments import allowed_keys, narrowed
    from otel_queue.ledger.families import ledger_families

    config, snapshot = settings_of(options), _snapshot(options)
    chosen = options.keys.replace(" ", "").split(",") if options.keys else None
    counts: dict[str, dict[str, int]] = {}
    for form in ("full", "lean"):
        for family in ledger_families(snapshot, lean=form == "lean").families:
            found = counts.setdefault(family.name, {})
            found[form] = len(family.samples)
            if form != config.domain.labels:
                continue
            keys = CATALOG[family.name].keys
            with_keys = allowed_keys(CATALOG[family.name], config.attributes)
            if chosen is not None:
                with_keys = tuple(key for key in keys if key in chosen)
            found["chosen"] = len(narrowed(family, with_keys))
    rows = [(name, found.get("full"), found.get("lean"), found.get("chosen")) for name, found in counts.items()]
    if options.json:
        print(json.dumps([dict(zip(("metric", "full", "lean", "chosen"), row, strict=True)) for row in rows], indent=2))
        return FINE
    heading = f"SERIES with {options.keys}" if chosen else "SERIES as configured"
    print(table(("METRIC", "SERIES full", "SERIES lean", heading), rows))
    print(f"domain.most_series = {config.domain.most_series} for one project and metric; beyond it endpoints add up")
    return FINE
