"""An exporter whose answers a test chooses, and that tells what it was asked."""

import threading
from dataclasses import dataclass, field

from otel_queue.server.exporter import Exposition, LaneState, Readiness, Status

TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPEN_METRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
BODY = b"# TYPE asynq_queue_size gauge\n" + b'asynq_queue_size{queue="default"} 3\n' * 200


@dataclass
class FakeExporter:
    """Answers at once, unless `gate` is cleared: then a scrape or probe waits until it is set."""

    body: bytes = BODY
    readiness: Readiness = field(default_factory=lambda: Readiness(True, "redis answered"))
    process: Status = field(default_factory=lambda: Status("1.2.3", 1000.0, (), "off"))
    error: Exception | None = None
    asked: list[tuple[str, float | None]] = field(default_factory=list)
    freshened: list[float] = field(default_factory=list)
    gate: threading.Event = field(default_factory=threading.Event)
    at_once: int = 0
    most_at_once: int = 0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self.gate.set()

    def scrape(self, accept: str, budget_seconds: float | None) -> Exposition:
        with self.lock:
            self.asked.append((accept, budget_seconds))
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            self._pass()
        finally:
            with self.lock:
                self.at_once -= 1
        return Exposition(OPEN_METRICS if "openmetrics" in accept else TEXT, self.body)

    def ready(self) -> Readiness:
        self._pass()
        return self.readiness

    def freshen(self, budget_seconds: float) -> None:
        self.freshened.append(budget_seconds)

    def status(self) -> Status:
        if self.error is not None:
            raise self.error
        return self.process

    def _pass(self) -> None:
        assert self.gate.wait(30)
        if self.error is not None:
            raise self.error


def lane(**changes: object) -> LaneState:
    values: dict[str, object] = {
        "name": "queue",
        "source": "redis://127.0.0.1:6379/0",
        "up": True,
        "duration_seconds": 0.012,
        "last_success": 1000.0,
        "age_seconds": 1.5,
        "errors": {},
        "last_error": None,
    }
    return LaneState(**{**values, **changes})  # type: ignore[arg-type]
