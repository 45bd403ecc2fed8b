"""What the HTTP side asks of the exporter behind it."""

from typing import Protocol

from otel_queue.status import Exposition, LaneState, Readiness, Status

__all__ = ["Exporter", "Exposition", "LaneState", "Readiness", "Status"]


class Exporter(Protocol):
    """The pipeline, seen from HTTP. All is called from several threads at once."""

    def scrape(self, accept: str, budget_seconds: float | None) -> Exposition:
        """The current samples in the best format for the Accept header `accept` ("" when there was none).

        Blocks. `budget_seconds` is what is left of the scraper's patience, None when it did not say.
        """
        ...

    def ready(self) -> Readiness:
        """Whether Redis can be read, found out by reading it. Blocks."""
        ...

    def freshen(self, budget_seconds: float) -> None:
        """Somebody looks at the page: reads what has not been read lately. Blocks, at most `budget_seconds`."""
        ...

    def status(self) -> Status:
        """What is known already: no I/O, no waiting for a lock that I/O holds."""
        ...
