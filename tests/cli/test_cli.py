import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from otel_queue import doctor
from otel_queue.asynq import keys
from otel_queue.asynq.message import ServerInfo
from otel_queue.asynq.queue_info import QUEUE_INFO_FIELDS
from otel_queue.catalog import ATTEMPTS, CATALOG
from otel_queue.cli import FINDING, FINE, UNREACHABLE, USAGE, main
from otel_queue.demo.broker import Broker
from otel_queue.demo.heartbeat import beat_server
from otel_queue.errors import ReadError
from otel_queue.redis_client import Answers, RedisLink, Request, connect
from tests.asynq_writer import AsynqWriter
from tests.servers.redis import redis_server

NOWHERE = "redis://127.0.0.1:1/0"


def test_inspect_prints_a_line_per_queue_under_headings_with_units(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    AsynqWriter(redis_url).pending("default", "low", count=3)
    assert main(["inspect", "--redis-url", redis_url]) == FINE
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:2] == ["QUEUE", "PENDING"]
    assert "LATENCY s" in head
    assert [row.split()[:2] for row in rows] == [["default", "3"], ["low", "3"]]


def test_inspect_as_json_has_asynqs_fields_and_no_others(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    AsynqWriter(redis_url).pending("default")
    assert main(["inspect", "--json", "--redis-url", redis_url]) == FINE
    [queue] = json.loads(capsys.readouterr().out)
    assert tuple(queue) == QUEUE_INFO_FIELDS
    assert (queue["queue"], queue["pending"], queue["paused"]) == ("default", 1, False)
    assert queue["memory_usage"] > 0
    assert queue["timestamp"].endswith("Z")


@pytest.mark.parametrize("what", [["--servers"], ["--schedulers"], ["--history", "2"], ["--types"]])
@pytest.mark.parametrize("form", [[], ["--json"]])
def test_inspect_shows_other_things_too(
    what: list[str], form: list[str], redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    AsynqWriter(redis_url).pending("default")
    assert main(["inspect", *what, *form, "--redis-url", redis_url]) == FINE
    out = capsys.readouterr().out
    assert isinstance(json.loads(out), list) if form else out.splitlines()


def test_inspect_shows_busy_workers_that_cannot_be_read_as_unknown(
    redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    server = ServerInfo("host-a", 7, "server-1", 10, {"default": 1})
    with redis.Redis.from_url(redis_url) as client:
        beat_server(Broker(client, time.time), server, [])
        client.hset(keys.workers("host-a", 7, "server-1"), "broken", b"\xff")
    assert main(["inspect", "--servers", "--json", "--redis-url", redis_url]) == FINE
    [found] = json.loads(capsys.readouterr().out)
    assert (found["server_id"], found["active_workers"]) == ("server-1", None)


def test_a_queue_that_does_not_exist_is_a_finding(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "nope", "--redis-url", redis_url]) == FINDING
    assert "queue 'nope' is not listed" in capsys.readouterr().err


def test_redis_that_is_not_there_is_told_without_a_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "--redis-url", NOWHERE]) == UNREACHABLE
    said = capsys.readouterr().err
    assert "127.0.0.1:1" in said
    assert "Traceback" not in said


def test_every_fault_of_the_configuration_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--redis-url", "http://x", "--listen", "nowhere"]) == USAGE
    assert capsys.readouterr().err.count("otel-queue: ") == 2


def test_a_port_that_is_taken_is_told(capsys: pytest.CaptureFixture[str], redis_url: str) -> None:
    taken = redis_url.removeprefix("redis://").partition("/")[0]
    assert main(["serve", "--redis-url", redis_url, "--listen", taken]) == USAGE
    assert "address already in use" in capsys.readouterr().err


def test_catalog_prints_every_row_in_three_forms(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["catalog"]) == FINE
    assert len(capsys.readouterr().out.splitlines()) == len(CATALOG) + 1
    assert main(["catalog", "--markdown"]) == FINE
    out = capsys.readouterr().out
    assert all(f"| `{name}` |" in out for name in CATALOG)
    assert main(["catalog", "--json"]) == FINE
    assert [row["name"] for row in json.loads(capsys.readouterr().out)] == list(CATALOG)


def test_check_finds_nothing_wrong_with_a_good_redis(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    AsynqWriter(redis_url).pending("default")
    assert main(["check", "--redis-url", redis_url]) == FINE
    out = capsys.readouterr().out
    assert "FAIL" not in out
    assert "WARN" not in out


def test_check_counts_one_queue_as_one(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    AsynqWriter(redis_url).pending("default")
    main(["check", "--redis-url", redis_url])
    assert "answers and lists 1 queue\n" in capsys.readouterr().out
    AsynqWriter(redis_url).pending("low")
    main(["check", "--redis-url", redis_url])
    assert "answers and lists 2 queues\n" in capsys.readouterr().out


def test_check_warns_of_a_variable_that_is_no_setting(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_QUEUE_REDIS_ULR", "redis://elsewhere")
    monkeypatch.setenv("OTEL_QUEUE_SERVICE_HOST", "10.0.0.1")  # of Kubernetes, for a service of this name
    assert main(["check", "--redis-url", redis_url]) == FINE
    assert [line for line in capsys.readouterr().out.splitlines() if "OTEL_QUEUE_" in line and "->" not in line] == [
        "WARN  OTEL_QUEUE_REDIS_ULR: no such setting"
    ]


@pytest.mark.parametrize(
    ("parity", "attempts", "warns"),
    [("legacy", "", True), ("legacy", "ledger", False), ("legacy", "none", False), ("corrected", "", False)],
)
def test_check_warns_of_attempts_that_have_no_source(
    parity: str, attempts: str, warns: bool, tmp_path: Path, redis_url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    own = f'[domain.metrics.{ATTEMPTS}]\nsource = "{attempts}"\n' if attempts else ""
    file = tmp_path / "otel-queue.toml"
    file.write_text(
        f'[domain]\nsource = "postgres"\n{own}[postgres]\ndsn = "postgres://127.0.0.1:1/none"\nparity = "{parity}"\n',
        encoding="utf-8",
    )
    main(["check", "--redis-url", redis_url, "--config", str(file)])
    assert (f"WARN  attempts: {ATTEMPTS} has no source" in capsys.readouterr().out) == warns


def test_check_names_each_command_that_is_refused_and_how_to_permit_it(capsys: pytest.CaptureFixture[str]) -> None:
    acl = "watcher on >secret ~asynq:* +@all -zcount -memory -multi"
    with redis_server(users=[acl]) as server:
        url = f"redis://watcher:secret@127.0.0.1:{server.port}/0"
        assert main(["check", "--json", "--redis-url", url]) == FINDING
    findings = {item["subject"]: item for item in json.loads(capsys.readouterr().out)}
    assert findings["command ZCOUNT"]["status"] == "fail"
    assert "+zcount" in findings["command ZCOUNT"]["advice"]
    assert findings["command MEMORY USAGE"]["status"] == "warn"
    assert findings["command MULTI"]["status"] == "warn"


def test_check_warns_of_an_eviction_policy_that_loses_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    with redis_server(args=["--maxmemory-policy", "allkeys-lru"]) as server:
        main(["check", "--redis-url", server.url])
    assert "WARN  eviction policy: allkeys-lru" in capsys.readouterr().out


def test_check_of_a_redis_that_is_not_there_says_what_to_look_at(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "--redis-url", NOWHERE]) == UNREACHABLE
    assert "-> check redis.url" in capsys.readouterr().out


class GoesAway:
    """A link whose server is gone after the first answer."""

    def __init__(self, link: RedisLink) -> None:
        self._link = link
        self._has_answered = False

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        if self._has_answered:
            raise ReadError("connection", "it is gone")
        self._has_answered = True
        return self._link.exchange(requests, deadline)

    def close(self) -> None:
        self._link.close()


def test_check_of_a_redis_that_goes_away_meanwhile_shows_what_was_found_until_then(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["ledger", "init", "--redis-url", redis_url]) == FINE
    capsys.readouterr()
    monkeypatch.setattr(doctor, "connect", lambda config: GoesAway(connect(config)))
    assert main(["check", "--redis-url", redis_url, "--domain-source", "ledger"]) == UNREACHABLE
    out = capsys.readouterr().out
    assert "WARN  redis:" in out
    assert "ok    ledger: redis://" in out
    assert out.count("it is gone\n      -> check redis.url") == 2


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_check_tries_the_otlp_endpoint(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, protocol: str
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    assert main(["check", "--redis-url", redis_url]) == UNREACHABLE
    assert f"FAIL  otlp: {protocol}" in capsys.readouterr().out


def test_check_says_what_serve_makes_of_opentelemetrys_variables(
    redis_url: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "prometheus")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("OTEL_EXPORTER_PROMETHEUS_PORT", "9000")
    main(["check", "--redis-url", redis_url])
    out = capsys.readouterr().out
    assert "WARN  OTEL_EXPORTER_PROMETHEUS_PORT: has no effect\n      -> `server.listen`" in out
    assert "ok    otlp: off" in out
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "otlp")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_METRICS_TEMPORALITY_PREFERENCE", "delta")
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TIMEOUT", "1")
    main(["check", "--redis-url", redis_url])
    assert "PREFERENCE: serve stays cumulative, and this is delta" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"appendonly": "no"}, "WARN  ledger file: appendonly is off"),
        ({"appendonly": "yes"}, "WARN  ledger file: Redis starts on a torn append-only file"),
        ({"appendonly": "yes", "aof-load-truncated": "no"}, "ok    ledger file: append-only"),
    ],
)
def test_check_looks_at_what_a_ledger_outlives(
    capsys: pytest.CaptureFixture[str], settings: dict[str, str], said: str
) -> None:
    arguments = [word for name, value in settings.items() for word in (f"--{name}", value)]
    with redis_server(args=arguments) as server:
        main(["check", "--redis-url", server.url, "--domain-source", "ledger"])
    assert said in capsys.readouterr().out


def test_check_reads_the_web_config(tmp_path: Path, redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "web.yml"
    file.write_text("basic_auth_users: {a: plain}\nwhat: 1\n", encoding="utf-8")
    assert main(["check", "--redis-url", redis_url, "--web-config", str(file)]) == FINDING
    assert capsys.readouterr().out.count("FAIL  web config") == 2


def test_importing_the_package_loads_no_client_library_and_does_nothing() -> None:
    code = "import sys, otel_queue; print([m for m in ('redis', 'opentelemetry', 'uvicorn') if m in sys.modules])"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ran.stdout.strip() == "[]"


def test_the_module_runs_as_the_command_does() -> None:
    ran = subprocess.run([sys.executable, "-m", "otel_queue", "--version"], capture_output=True, text=True, check=True)
    assert ran.stdout.startswith("otel-queue ")
