"""`otel-queue check`: what works, what does not, and what to do about it."""

import argparse
import json
from typing import Any, Final

from otel_queue.cli import FINDING, FINE, UNREACHABLE
from otel_queue.cli.options import add_settings, settings_of

_MARKS: Final = {"ok": "ok", "warn": "WARN", "fail": "FAIL"}


def add_command(commands: Any) -> None:
    """Adds `check`."""
    parser = commands.add_parser("check", help="probe configuration, Redis and the OTLP endpoint")
    parser.add_argument("--json", action="store_true", help="as JSON")
    add_settings(parser, ("redis", "queue", "domain", "ledger", "postgres", "server", "otlp"))
    parser.set_defaults(run=_run)


def _run(options: argparse.Namespace) -> int:
    from otel_queue.doctor import examine

    findings = examine(settings_of(options))
    if options.json:
        keys = ("status", "subject", "detail", "advice")
        print(json.dumps([{key: getattr(item, key) for key in keys} for item in findings], indent=2))
    else:
        for item in findings:
            print(f"{_MARKS[item.status]:4}  {item.subject}: {item.detail}")
            if item.advice:
                print(f"      -> {item.advice}")
    if any(item.unreachable for item in findings):
        return UNREACHABLE
    return FINDING if any(item.status == "fail" for item in findings) else FINE
