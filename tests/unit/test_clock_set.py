"""Ages are how long ago something was, though the clock on the wall is set meanwhile."""

import json
import subprocess
import sys

import pytest

HOUR = 3600.0

# The clock is ours before anything is imported: a default argument takes hold of it once and for all.
_SET = """
import contextlib, json, sys, time

actual, ahead = time.time, 0.0
time.time = lambda: actual() + ahead

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import ConsoleMetricExporter
from otel_queue.export.otlp import OtlpPush
from otel_queue.history import FailureMemory
from otel_queue.overview import Overview
from otel_queue.samples import Family
from tests.servers.process import wait_until

overview, memory = Overview(), FailureMemory()
push = OtlpPush(
    ConsoleMetricExporter(out=sys.stderr), interval_seconds=60, collection=contextlib.nullcontext, target="test"
)
MeterProvider([push.reader], shutdown_on_exit=False).get_meter("test").create_counter("c").add(1)
overview.note({})
memory.record(Family("convoy_event_delivery_attempts_total", [], 0.0, "ledger", 1.0))
push.push()
ahead = float(sys.argv[1])
lately = wait_until(memory.lately_seconds, within=10.0, what="the standing is not of this moment")
json.dump([overview.age_seconds(), lately, push.state().age_seconds], sys.stdout)
"""


@pytest.mark.parametrize("ahead", [-HOUR, HOUR])
def test_no_age_jumps_with_the_clock(ahead: float) -> None:
    ran = subprocess.run([sys.executable, "-c", _SET, str(ahead)], capture_output=True, text=True, check=True)
    ages = json.loads(ran.stdout)
    assert len(ages) == 3
    assert all(0 < age < HOUR for age in ages), f"page, failures and push are {ages} s old"
