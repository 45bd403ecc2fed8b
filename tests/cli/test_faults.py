"""Faults of usage and surroundings end a command with a line and an exit status, never with a traceback."""

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from otel_queue.cli import UNREACHABLE, USAGE, main
from otel_queue.config import load_config
from otel_queue.errors import ConfigError

NOWHERE = "redis://127.0.0.1:1/0"
SERVE = [sys.executable, "-m", "otel_queue", "serve", "--redis-url", NOWHERE, "--listen", "127.0.0.1:0"]


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        (["inspect", "--history", "0"], "must be 1 to 3650 days, not 0"),
        (["inspect", "--history", "x"], "must be 1 to 3650 days, not x"),
        (["demo", "--rate", "0"], "must be 0.001 to 10000 events a second, not 0"),
        (["demo", "--rate", "inf"], "must be 0.001 to 10000 events a second, not inf"),
        (["demo", "--rate", "nan"], "not nan"),
        (["demo", "--for", "nan"], "not nan"),
        (["demo", "--for", "1e12"], "not 1e12"),
        (["seed", "--pause", "x"], "must be 0 to 20 seconds, not x"),
        (["seed", "--batch", "0"], "must be 1 to 50000 rows, not 0"),
    ],
)
def test_a_number_out_of_bounds_is_a_fault_of_usage(
    command: list[str], expected: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(command)
    assert ended.value.code == USAGE
    assert expected in capsys.readouterr().err


@pytest.mark.parametrize("command", ["catalog", "check --redis-url redis://127.0.0.1:1"])
@pytest.mark.parametrize(("stdout", "reason"), [(">/dev/full", "No space left on device"), (">&-", "stdout is closed")])
def test_an_output_that_cannot_be_written_is_told(command: str, stdout: str, reason: str) -> None:
    shell = f'unset PYTHONUNBUFFERED; exec "$0" -m otel_queue {command} {stdout}'
    ran = subprocess.run(["sh", "-c", shell, sys.executable], capture_output=True, text=True, check=False)
    assert (ran.returncode, ran.stderr) == (UNREACHABLE, f"otel-queue: the output cannot be written: {reason}\n")


@pytest.mark.parametrize("variable", ["OTEL_METRICS_EXEMPLAR_FILTER", "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT"])
def test_a_variable_that_opentelemetry_refuses_is_told(variable: str) -> None:
    command = ["env", f"{variable}=x", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1", *SERVE]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == USAGE
    assert variable in ran.stderr
    assert "Traceback" not in ran.stderr


def test_serve_warns_of_a_variable_that_is_no_setting_and_of_one_that_it_overrides() -> None:
    preference = "OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE"
    pushes = [f"{preference}=delta", "OTEL_EXPORTER_OTLP_ENDPOINT=http://127.0.0.1:1"]
    command = ["env", "OTEL_QUEUE_REDIS_ULR=x", *pushes, *SERVE]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = ""
            while "serving http" not in said:
                line = process.stderr.readline()
                assert line, said
                said += line
        finally:
            process.send_signal(signal.SIGTERM)
    assert re.findall(r"WARNING (OTEL_\w+: [^;]+);", said) == [
        "OTEL_QUEUE_REDIS_ULR: no such setting",
        f"{preference}: serve stays cumulative, and this is delta",
    ]


_DIES = """
import sys
import uvicorn
from otel_queue.cli import main

async def die(self, counter):
    raise OSError("no more")

uvicorn.Server.on_tick = die
sys.exit(main(sys.argv[1:]))
"""


def test_serve_without_its_http_server_ends_with_a_status_after_which_it_is_started_again() -> None:
    command = [sys.executable, "-c", _DIES, *SERVE[3:]]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert ran.returncode == UNREACHABLE
    assert "the HTTP server ended: OSError('no more')" in ran.stderr


@pytest.mark.parametrize(
    ("redis", "ledger", "is_used"),
    [("redis", "", False), ("redis", "redis", False), ("rediss", "", True), ("rediss", "redis", True),
     ("redis", "rediss", True)],
)  # fmt: skip
def test_an_authority_is_for_whichever_redis_uses_tls(tmp_path: Path, redis: str, ledger: str, is_used: bool) -> None:
    authority = tmp_path / "ca.pem"
    authority.touch()
    given = {"redis.url": f"{redis}://h/0", "redis.tls_ca_file": str(authority)}
    given |= {"ledger.url": f"{ledger}://h/1"} if ledger else {}
    if is_used:
        assert load_config(given, {}).redis.tls_ca_file == authority
    else:
        with pytest.raises(ConfigError, match=r"redis.tls_ca_file: no URL of a Redis uses TLS"):
            load_config(given, {})
