"""The deployment examples, as the programs read them that take them."""

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

from otel_queue.config.load import CONFIG_FILE_VARIABLE
from otel_queue.config.settings import all_settings
from tests.go_program import DEPLOY_CHECKS, ROOT, build_go_program

DEPLOY: Final = ROOT / "examples" / "deploy"

_VARIABLES: Final = {CONFIG_FILE_VARIABLE, *(item.variable for item in all_settings())}
_FLAGS: Final = {"--config", *(item.flag for item in all_settings() if item.flag)}


class Report(NamedTuple):
    """What is wrong with a file, and what was found in it."""

    faults: list[str]
    found: Any


def check(*arguments: str, text: str | None = None) -> Report:
    """One command of tests/deploy/checks_go; `text` is its stdin."""
    program = build_go_program(DEPLOY_CHECKS)
    done = subprocess.run([program, *arguments], input=text, capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    return Report(answer["faults"], answer["found"])


def unknown_settings(environment: Mapping[str, object], arguments: Iterable[str]) -> set[str]:
    """The variables and flags that look like settings of otel-queue and are none."""
    variables = {name for name in environment if name.startswith("OTEL_QUEUE_")}
    flags = {argument.partition("=")[0] for argument in arguments if re.match("--[a-z]", argument)}
    return (variables - _VARIABLES) | (flags - _FLAGS)
