"""The inspector that a configuration asks for, with a connection of its own."""

from otel_queue.asynq.inspector import Inspector
from otel_queue.config import Config
from otel_queue.redis_client import connect


def queue_inspector(config: Config) -> Inspector:
    """An inspector of the queues' Redis; connects at its first reading."""
    queue = config.queue
    return Inspector(
        connect(config.redis),
        timeout_seconds=queue.timeout_seconds,
        groups_cap=queue.groups_cap,
        with_workers=queue.workers,
    )
