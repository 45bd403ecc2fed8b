"""Asynq queue state and webhook domain metrics through OpenTelemetry."""

from otel_queue.version import __version__

__all__ = ["__version__"]
