"""What the HTTP side asks of the exporter behind it."""

from typing import Protocol

from otel_queue.status import Exposition, LaneStatus, Readiness, Status

__all__ = ["Exporter", "Exposition", "LaneStatus", "Readiness", "Status"]


class Exporter(Protocol):
    """The pipeline, seen from HTTP. `scrape` and `ready` are called from several threads at once."""

    def scrape(self, accept: str, budget_seconds: float | None) -> Exposition:
        """The current samples in the best format for the Accept header `accept` ("" when there was none).

        Blocks. `budget_seconds` is what is left of the scraper's patience, None when it did not say.
        """
        ...

    def ready(self) -> Readiness:
        """Whether Redis can be read, found out by reading it. Blocks."""
        ...

    def status(self) -> Status:
        """What is known already. Called on the event loop: no I/O, no waiting for a lock that I/O holds."""
        ...
