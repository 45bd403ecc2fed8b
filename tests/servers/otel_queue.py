"""`otel-queue serve` as a process of its own, and what a scrape of it says."""

import contextlib
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from tests.servers.process import ServerProcess, free_port, temporary_directory, wait_until


class Scrape:
    """One answer of /metrics, and questions to it."""

    def __init__(self, text: str) -> None:
        self.text = text
        self._values: dict[str, dict[frozenset[tuple[str, str]], float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                self._values.setdefault(sample.name, {})[frozenset(sample.labels.items())] = sample.value

    def values(self, name: str, **labels: str) -> list[float]:
        """The series of that name with at least these labels."""
        series = self._values.get(name, {}).items()
        return [value for keys, value in series if labels.items() <= dict(keys).items()]

    def value(self, name: str, **labels: str) -> float | None:
        """The one series of that name with at least these labels; None where there is none."""
        found = self.values(name, **labels)
        assert len(found) <= 1, f"{name}{labels} names {len(found)} series"
        return found[0] if found else None

    def names(self) -> set[str]:
        """The names with at least one series."""
        return set(self._values)

    def queue_names(self) -> set[str]:
        """The names of series that describe queues: asynq's and Convoy's."""
        return {name for name in self.names() if name.startswith(("asynq_", "convoy_"))}


class ServeProcess:
    def __init__(self, directory: Path, redis_url: str, config: str, environment: Mapping[str, str]) -> None:
        self.port = free_port()
        config_file = directory / "otel-queue.toml"
        config_file.write_text(config)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "OTEL_QUEUE_"))}
        self.process = ServerProcess(
            f"otel-queue-{self.port}",
            [
                *(str(Path(sys.executable).parent / "otel-queue"), "serve"),
                *("--redis-url", redis_url),
                *("--listen", f"127.0.0.1:{self.port}"),
                *("--config", str(config_file)),
            ],
            is_ready=lambda: self.get("/healthz") == 200,
            directory=directory,
            environment={**inherited, **environment},
        )

    @property
    def address(self) -> str:
        """As in a Prometheus target."""
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"http://{self.address}/metrics"

    def get(self, path: str) -> int:
        """The status of one request."""
        try:
            with urllib.request.urlopen(f"http://{self.address}{path}", timeout=10) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def scrape(self) -> Scrape:
        """What Prometheus would get now; an AssertionError when it would get nothing or an error."""
        try:
            with urllib.request.urlopen(self.url, timeout=15) as response:
                return Scrape(response.read().decode())
        except OSError as error:
            raise AssertionError(f"a scrape was not answered: {error}\n{self.process.logs()[-4_000:]}") from error

    def scrape_until(
        self,
        is_reached: Callable[[Scrape], object],
        *,
        what: str,
        always: Callable[[Scrape], None] = lambda _: None,
        within: float = 20.0,
    ) -> Scrape:
        """The first scrape of which `is_reached` is true.

        On the way there, each scrape must be answered and pass the assertions of `always`.
        """
        scrapes: list[Scrape] = []

        def attempt() -> bool:
            scrapes[:] = [self.scrape()]
            always(scrapes[0])
            return bool(is_reached(scrapes[0]))

        try:
            wait_until(attempt, within=within, what=what)
        except AssertionError as error:
            shown = scrapes[0].text if scrapes else "no scrape yet"
            raise AssertionError(f"{error}\n{shown}\n{self.process.logs()[-4_000:]}") from error
        return scrapes[0]


@contextlib.contextmanager
def serve(redis_url: str, *, config: str = "", environment: Mapping[str, str] | None = None) -> Iterator[ServeProcess]:
    """`config` is the text of its --config file. No OTEL_* variable of the test's own environment reaches it."""
    with temporary_directory() as directory:
        server = ServeProcess(directory, redis_url, config, environment or {})
        try:
            server.process.start()
            yield server
        finally:
            server.process.stop()
