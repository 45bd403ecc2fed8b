"""What looks on all the time: scrapes that must be answered and never wrong, and what the processes take."""

import statistics
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from tests.faults.drill import true_or_absent
from tests.ledger.oracle import ATTEMPTS, DELIVERIES, EVENTS
from tests.servers.otel_queue import Scrape, ServeProcess
from tests.soak.whole.load import Book

SCRAPE_SECONDS: Final = 3.0
BUDGET_SECONDS: Final = 6.0
# What a busy machine may take beside the budget.
SLACK_SECONDS: Final = 3.0
STALENESS_SECONDS: Final = 15.0
SAMPLE_SECONDS: Final = 5.0


Series = Mapping[frozenset[tuple[str, str]], float]


class Seen(Scrape):
    """A scrape, by series."""

    def series(self, name: str) -> Series:
        """The values of that name by labels."""
        return self._values.get(name, {})


class Judge:
    """Knows what an exporter showed before and what was told: no scrape may fall behind, or show a false zero."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._highest: dict[object, float] = {}

    def judge(self, scrape: Seen, began: float) -> None:
        """An AssertionError says what is wrong with a scrape that began at a moment (time.monotonic)."""
        true_or_absent(scrape)
        counts = scrape.series(EVENTS)
        for series, value in scrape.series(ATTEMPTS).items():
            self._never_falls((ATTEMPTS, series), value)
        for name in (EVENTS, DELIVERIES):
            for project, value in _by_project(scrape.series(name)).items():
                self._never_falls((name, project), value)
        assert sum(counts.values()) <= self._book.told, f"{sum(counts.values())} events, {self._book.told} were told"
        if counts:
            exact = sum(value for project, value in _by_project(counts).items() if project.startswith("exact"))
            confirmed = self._book.exact_confirmed_before(began - STALENESS_SECONDS - BUDGET_SECONDS)
            assert exact >= confirmed, f"{exact} events, and {confirmed} were confirmed before"

    def _never_falls(self, series: object, value: float) -> None:
        before = self._highest.get(series, 0.0)
        self._highest[series] = max(before, value)
        assert value >= before, f"{series} fell from {before} to {value}"


class Watcher:
    """Scrapes one exporter every few seconds, as Prometheus would, and judges what it gets."""

    def __init__(self, name: str, served: ServeProcess, book: Book, say: Callable[[str], None]) -> None:
        self.name = name
        self._say = say
        self._shows_domain = False
        self._served = served
        self._judge = Judge(book)
        self._end = threading.Event()
        self.is_down = threading.Event()
        """Set while the exporter is killed on purpose: then nobody has to answer."""
        self.scrapes = 0
        self.unanswered = 0
        self.with_domain = 0
        self.with_queues = 0
        self.longest_seconds = 0.0
        self.wrong: list[str] = []
        self._thread = threading.Thread(target=self._run)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(SCRAPE_SECONDS):
            began, was_down = time.monotonic(), self.is_down.is_set()
            try:
                text = self._get()
            except OSError as error:
                if not (was_down or self.is_down.is_set()):
                    self.unanswered += 1
                    self._complain(f"not answered after {time.monotonic() - began:.1f} s: {error}")
                continue
            seconds = time.monotonic() - began
            self.scrapes += 1
            self.longest_seconds = max(self.longest_seconds, seconds)
            if seconds > BUDGET_SECONDS + SLACK_SECONDS:
                self._complain(f"answered after {seconds:.1f} s")
            self._look(text, began)

    def _look(self, text: str, began: float) -> None:
        try:
            scrape = Seen(text)
            self.with_queues += "asynq_queue_size" in scrape.names()
            shows_domain = EVENTS in scrape.names()
            self.with_domain += shows_domain
            if shows_domain != self._shows_domain:
                self._say(f"{_clock()} {self.name}: the domain is {'there' if shows_domain else 'absent'}")
            self._shows_domain = shows_domain
            self._judge.judge(scrape, began)
        except AssertionError as error:
            self._complain(str(error))
        except Exception as error:
            # A thread that ends would look as if all were well.
            self._complain(f"cannot be judged: {error!r}")

    def _get(self) -> str:
        with urllib.request.urlopen(self._served.url, timeout=BUDGET_SECONDS + 2 * SLACK_SECONDS) as response:
            return str(response.read().decode())

    def _complain(self, what: str) -> None:
        self.wrong.append(f"{_clock()} {self.name}: {what}")


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _by_project(series: Series) -> dict[str, float]:
    found: Counter[str] = Counter()
    for labels, value in series.items():
        found[dict(labels)["project"]] += value  # type: ignore[assignment]
    return dict(found)


@dataclass
class Vitals:
    """What one process takes, over time: resident memory in KiB, file descriptors, threads."""

    memory: list[int] = field(default_factory=list)
    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def take(self, pid: int) -> None:
        status = dict(
            line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines() if ":" in line
        )
        self.descriptors.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        self.memory.append(int(status["VmRSS"].split()[0]))
        self.threads.append(int(status["Threads"]))
        self.times.append(time.monotonic())

    def median(self, what: str, begin: float, end: float) -> float:
        """Of the samples between two moments (time.monotonic)."""
        values: list[int] = getattr(self, what)
        taken = [value for value, at in zip(values, self.times, strict=True) if begin <= at <= end]
        return statistics.median(taken) if taken else float("nan")


class Sampler:
    """Takes the vitals of processes that are to live as long as the run."""

    def __init__(self, pids: Mapping[str, Callable[[], int]]) -> None:
        self._pids = pids
        self.vitals = {name: Vitals() for name in pids}
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.gone: list[str] = []

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._end.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._end.wait(SAMPLE_SECONDS):
            for name, pid in self._pids.items():
                try:
                    self.vitals[name].take(pid())
                except (OSError, KeyError) as error:
                    self.gone.append(f"{name}: {error!r}")
