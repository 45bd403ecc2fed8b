"""Takes the rows' word into the ledger of the hooks: first a look at what differs, then what is allowed of it."""

import time
from collections.abc import Callable
from typing import Final

from otel_queue.errors import OtelQueueError
from otel_queue.ledger.contract import Contract
from otel_queue.ledger.merge.one_pass import Pass, TooMuchError
from otel_queue.ledger.merge.report import Report
from otel_queue.ledger.merge.side import Side
from otel_queue.ledger.merge.words import Rest

MOST_CHANGED: Final = 0.05
"""The share of a project's deliveries whose status may change without force."""


class Merge:
    """One merge of the ledger `rows`, which a follower keeps, into the ledger `hooks`. It may be ended and repeated.

    Nothing is written without `force` where more than `MOST_CHANGED` of a project's statuses would change, or more
    than one day with counts would expire. What has no row is forgotten with `force` only. `advance` is told how many
    ids were compared, and of what; `survey` what force will do, before it is done.
    """

    def __init__(
        self,
        rows: Side,
        hooks: Side,
        *,
        project: str | None = None,
        force: bool = False,
        with_attempts: bool = True,
        advance: Callable[[int, str], None] | None = None,
        survey: Callable[[Report], None] | None = None,
    ) -> None:
        self._rows = rows
        self._hooks = hooks
        self._project = project
        self._force = force
        self._with_attempts = with_attempts
        self._advance = advance
        self._survey = survey

    def run(self, *, is_dry: bool = False) -> Report:
        """What was merged, or would be; raises ReadError, WriteError, OtelQueueError where the ledgers do not fit."""
        began = time.monotonic()
        contract = self._agreed()
        projects = [self._project] if self._project else sorted({*self._rows.projects(), *self._hooks.projects()})
        report = Report(is_dry=True)
        survey = self._pass(contract, report)
        for project in projects:
            survey.take(project)
            if (changed := report.changed[project]) > report.held[project] * MOST_CHANGED:
                report.reasons.append(
                    f"{project}: {changed} of {report.held[project]} statuses would change, "
                    f"which is more than {MOST_CHANGED:.0%}"
                )
        if not is_dry and (self._force or not report.reasons):
            if report.needs_force and self._survey is not None:
                self._survey(report.end(time.monotonic() - began))
            report = self._merge(contract, projects, report, survey)
        return report.end(time.monotonic() - began)

    def _merge(self, contract: Contract, projects: list[str], found: Report, survey: Pass) -> Report:
        merged = Report(is_dry=False, compared=found.compared)
        for project in projects:
            allowed = None if self._force else int(found.held[project] * MOST_CHANGED)
            try:
                self._pass(contract, merged, allowed).take(project, survey.places.get(project, set()))
            except TooMuchError as error:
                merged.reasons.append(str(error))
                break
        return merged

    def _pass(self, contract: Contract, report: Report, allowed: int | None = None) -> Pass:
        # The time first: what is read after it is as of it, or later.
        now_us = self._rows.clock().now_us
        rest = Rest(now_us, self._rows.swept_us(), contract.max_skew_us)
        if not rest.swept_us:
            raise OtelQueueError(
                f"{self._rows.name} does not hold all rows yet: merge it when `otel-queue follow` has read all once"
            )
        return Pass(
            self._rows, self._hooks, contract, rest, report,
            force=self._force, allowed=allowed, with_attempts=self._with_attempts, advance=self._advance,
        )  # fmt: skip

    def _agreed(self) -> Contract:
        """The contract of the hooks' ledger; raises OtelQueueError where that of the rows' has other rules."""
        rows, hooks = (side.clock().contract for side in (self._rows, self._hooks))
        if (rows.max_skew_us, rows.rules) != (hooks.max_skew_us, hooks.rules):
            raise OtelQueueError(
                f"{self._rows.name} has the contract {_text(rows)} and {self._hooks.name} has {_text(hooks)}: ids are "
                "kept by it, so both must have the same; begin one of them anew, under another namespace"
            )
        return hooks


def _text(contract: Contract) -> str:
    """As it stands in Redis, but for the birth, which may differ."""
    version, _, *rest = contract.text().decode().split(";")
    return ";".join((version, *rest))
