"""The example, run as its README says."""

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.servers.redis import RedisServer

FOLDER = Path(__file__).parents[2] / "examples" / "python-worker"


def test_the_example_works_on_its_tasks_and_tells_process_and_ledger(redis_server: RedisServer) -> None:
    commands = re.findall(r"^    (\S+) (.+) --redis-url \S+$", (FOLDER / "README.md").read_text(), re.MULTILINE)
    (program, begin), (interpreter, file) = commands
    assert (program, interpreter) == ("otel-queue", "python")
    with redis_server.client() as client:
        client.flushall()
    subprocess.run(
        [sys.executable, "-m", "otel_queue", *begin.split(), "--redis-url", redis_server.url], check=True, timeout=60
    )
    script = FOLDER.parents[1] / file
    ran = subprocess.run(
        [sys.executable, script, "--redis-url", redis_server.url, "--tasks", "12"],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    samples = {
        (sample.name, sample.labels.get("source"), sample.labels.get("outcome")): sample.value
        for family in text_string_to_metric_families(ran.stdout)
        for sample in family.samples
    }
    assert samples["convoy_ingest_total", "http", None] == 12
    assert samples["asynq_tasks_sent_total", None, None] == 12
    ended = {key[2]: value for key, value in samples.items() if key[0] == "asynq_task_outcomes_total"}
    assert ended == {"success": 8, "failure": 4}
    names = {name for name, *_ in samples}
    # Attempts are the ledger's to export.
    assert not names & {"convoy_event_delivery_attempts_total", "otel_queue_errors_total"}
    with redis_server.client() as client:
        attempts: Counter[str] = Counter()
        for field, count in client.hgetall("oq:{shop}:attempts").items():
            attempts[field.split(b"\0")[1].decode()] += int(count)
        assert attempts == ended
        assert client.llen("asynq:{EventQueue}:pending") == 0
        assert client.zrange("oq:projects", 0, -1) == [b"shop"]
