import contextlib
import dataclasses
import json
import shutil
import subprocess
import urllib.parse
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tests.requirements_gate import Needs, missing
from tests.servers.process import ServerProcess, free_port, temporary_directory


@dataclasses.dataclass(frozen=True)
class Series:
    """One series at one moment; `labels` include `__name__`."""

    labels: dict[str, str]
    value: float


@dataclasses.dataclass(frozen=True)
class MetricMetadata:
    """Without the unit: only OpenMetrics carries one, so it is there or not by the path that a series took."""

    type: str
    help: str


class PrometheusServer:
    def __init__(self, process: ServerProcess, port: int) -> None:
        self.process = process
        self.port = port

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def query(self, promql: str, at: float | None = None) -> list[Series]:
        """The instant vector of now, or of a Unix time."""
        data = self._get("/api/v1/query", query=promql, **({} if at is None else {"time": str(at)}))
        assert data["resultType"] == "vector", f"{promql} is a {data['resultType']}, not a vector"
        return [Series(row["metric"], float(row["value"][1])) for row in data["result"]]

    def metadata(self, job: str) -> dict[str, MetricMetadata]:
        """Type and help of each family, as the targets of one job tell them now."""
        rows = self._get("/api/v1/targets/metadata", match_target=f'{{job="{job}"}}')
        return {row["metric"]: MetricMetadata(row["type"], row["help"]) for row in rows}

    def target_errors(self) -> list[str]:
        """What the last scrape of each target complained of; empty where all went well."""
        targets = self._get("/api/v1/targets")["activeTargets"]
        return [f"{each['scrapeUrl']}: {each['lastError']}" for each in targets if each["lastError"]]

    def _get(self, path: str, **parameters: str) -> Any:
        url = f"{self.url}{path}?{urllib.parse.urlencode(parameters)}"
        with urllib.request.urlopen(url, timeout=10) as response:
            return json.load(response)["data"]


def find_tool(name: str) -> str:
    """`prometheus` or `promtool`; the test is skipped where it is not on PATH."""
    return shutil.which(name) or missing(Needs.PROMETHEUS, f"{name} is not on PATH")


def _scrape_configs(targets: dict[str, Sequence[str]]) -> str:
    jobs = [{"job_name": job, "static_configs": [{"targets": list(addresses)}]} for job, addresses in targets.items()]
    return yaml.safe_dump({"scrape_configs": jobs})


@contextlib.contextmanager
def prometheus_server(
    config: str | dict[str, Sequence[str]],
    *,
    scrape_interval: str = "250ms",
    flags: Sequence[str] = (),
    history: str = "",
) -> Iterator[PrometheusServer]:
    """`config` is a configuration's text, or the addresses to scrape by job; `flags` are more of the command line's.

    `history` is text of OpenMetrics with times, which it has stored already.

    The text's own `global` section is replaced, so that a shipped configuration scrapes at a test's pace.
    """
    program = find_tool("prometheus")
    settings = yaml.safe_load(config if isinstance(config, str) else _scrape_configs(config))
    settings["global"] = {"scrape_interval": scrape_interval, "scrape_timeout": scrape_interval}
    with temporary_directory() as directory:
        config_file = directory / "prometheus.yml"
        config_file.write_text(yaml.safe_dump(settings))
        if history:
            _store(history, directory)
        port = free_port()
        process = ServerProcess(
            f"prometheus-{port}",
            [
                program,
                f"--config.file={config_file}",
                f"--storage.tsdb.path={directory / 'data'}",
                f"--web.listen-address=127.0.0.1:{port}",
                *flags,
            ],
            is_ready=lambda: _answers(port),
            directory=Path(directory),
        )
        try:
            process.start()
            yield PrometheusServer(process, port)
        finally:
            process.stop()


def _store(history: str, directory: Path) -> None:
    file = directory / "history.txt"
    file.write_text(history, encoding="utf-8")
    subprocess.run(
        [find_tool("promtool"), "tsdb", "create-blocks-from", "openmetrics", str(file), str(directory / "data")],
        check=True, capture_output=True,
    )  # fmt: skip


def _answers(port: int) -> bool:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/-/ready", timeout=2) as response:
        return int(response.status) == 200
