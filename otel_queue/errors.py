"""One error tree. A message says what failed, the offending value, what was expected, what to do next."""

from collections.abc import Sequence


class OtelQueueError(Exception):
    """Anything that otel-queue reports to its user."""


class ConfigError(OtelQueueError):
    """The configuration cannot be used; `faults` holds one line for each thing that is wrong."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = list(faults)
        super().__init__("\n".join(self.faults))


class ReadError(OtelQueueError):
    """Redis, or the database, could not be read.

    `reason` is one word from a bounded set (see `otel_queue.redis_client`), fit to be a metric's attribute.
    """

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class WriteError(OtelQueueError):
    """The ledger could not be written, or it is not known whether it was. `reason` as in ReadError."""

    def __init__(self, reason: str, message: str) -> None:
        self.reason = reason
        super().__init__(message)


class QueueNotFoundError(ReadError):
    """The queue is not in asynq:queues."""

    def __init__(self, queue: str) -> None:
        self.queue = queue
        super().__init__("queue_not_found", f"queue {queue!r} is not listed in asynq:queues")


class MessageError(ReadError):
    """Bytes that should be one of asynq's protobuf messages are not."""

    def __init__(self, message: str) -> None:
        super().__init__("undecodable", message)
