"""Convoy's own program, built from a checkout that the caller names. The checkout is only read."""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from tests.requirements_gate import Needs, missing

SOURCE: Final = "CONVOY_SOURCE"
"""A checkout of Convoy's public repository."""
REPLACE: Final = "CONVOY_REPLACE"
"""For modules that the Go proxy does not have: module=DIR, separated by spaces."""
_BUILD_SECONDS: Final = 1_500.0


def convoy_source() -> Path:
    """The checkout; the test is skipped where none is given."""
    named = os.environ.get(SOURCE)
    if not named:
        missing(Needs.CONVOY, f"{SOURCE} names no checkout of Convoy")
    source = Path(named).resolve()
    assert (source / "cmd" / "main.go").is_file(), f"{SOURCE}={named} is no checkout of Convoy: it has no cmd/main.go"
    return source


def build_convoy(source: Path, directory: Path) -> Path:
    """The program, built in `directory` from a copy of go.mod; the dashboard's page, which Convoy embeds, is empty."""
    go = shutil.which("go") or missing(Needs.CONVOY, "no go on PATH: Convoy cannot be built")
    module = directory / "convoy.mod"
    shutil.copy(source / "go.mod", module)
    shutil.copy(source / "go.sum", directory / "convoy.sum")
    replaced = [f"-replace={each}" for each in os.environ.get(REPLACE, "").split()]
    if replaced:
        _run(go, "mod", "edit", *replaced, str(module), source=source)
    page = directory / "index.html"
    page.write_text("<!doctype html>\n")
    overlay = directory / "overlay.json"
    overlay.write_text(json.dumps({"Replace": {str(source / "api" / "ui" / "build" / "index.html"): str(page)}}))
    program = directory / "convoy"
    options = ["-p", "2", "-trimpath", "-ldflags=-s -w", f"-modfile={module}", f"-overlay={overlay}"]
    _run(go, "build", *options, "-o", str(program), "./cmd", source=source)
    return program


def _run(*command: str, source: Path) -> None:
    environment = {"CGO_ENABLED": "0", "GOWORK": "off", "GOFLAGS": "-mod=mod -buildvcs=false"}
    done = subprocess.run(
        command, cwd=source, env=os.environ | environment, capture_output=True, text=True, timeout=_BUILD_SECONDS
    )
    assert done.returncode == 0, (
        f"{' '.join(command[:3])} failed in {source}; a module that the proxy refuses goes into {REPLACE}:\n"
        f"{done.stderr[-4_000:]}"
    )
