"""One server, and the exchange with it: the one place that reads and writes a Redis socket."""

import os
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final, NamedTuple

import hiredis
import redis

from otel_queue.errors import ReadError
from otel_queue.redis_client.reasons import CLIENT_ERRORS, as_read_error
from otel_queue.redis_client.requests import Answers, Reply, Request

_READ_SIZE: Final = 1 << 16
_NOT_YET: Final = object()


class _Own(NamedTuple):
    """What a process has of a link: a connection, a lock for who uses it, and what closes it."""

    process: int
    lock: threading.Lock
    connection: Any
    end: Callable[[], object]


class NodeLink:
    """One server: standalone, over a Unix socket, or the master that Sentinel names."""

    def __init__(self, pool: redis.ConnectionPool, name: str, connect_seconds: float) -> None:
        self._pool = pool
        self._name = name
        self._connect_seconds = connect_seconds
        self._own = self._begin()

    def _begin(self) -> "_Own":
        # Not yet connected. The pool only makes it, for it would open it without a deadline.
        connection: Any = self._pool.make_connection()
        # A link that is let go of closes its socket, whatever the order in which its parts are collected.
        end = weakref.finalize(self, connection.disconnect)
        end.atexit = False
        return _Own(os.getpid(), threading.Lock(), connection, end)

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        """As RedisLink; one exchange at a time, and those that wait for it give up at their own deadlines."""
        own = self._own
        if own.process != os.getpid():
            # Forked: a thread that is not here may hold the lock, and the connection is the parent's.
            own.end()
            own = self._own = self._begin()
        left = deadline - time.monotonic()
        if not own.lock.acquire(timeout=min(max(left, 0.0), threading.TIMEOUT_MAX)):
            raise ReadError("timeout", f"{self._name}: the time was used up waiting for other exchanges")
        try:
            self._open(own.connection, deadline)
            try:
                yield from converse(socket_of(own.connection), requests, deadline)
            except BaseException as error:
                # Replies may still arrive, or the caller wants no more of them: this connection is spent.
                own.connection.disconnect()
                if isinstance(error, CLIENT_ERRORS):
                    raise as_read_error(self._name, error) from error
                raise
        finally:
            own.lock.release()

    def _open(self, connection: Any, deadline: float) -> None:
        """Has it ready before the deadline; each step of opening it may take what was left when it began."""
        self._limit(connection, deadline)
        try:
            connection.connect()  # nothing where it is connected
            if not _is_clean(connection):
                connection.disconnect()
                self._limit(connection, deadline)
                connection.connect()
                if not _is_clean(connection):
                    raise redis.ConnectionError("there is something to be read before anything was asked")
        except BaseException as error:
            connection.disconnect()  # what broke in its handshake must not be taken for ready later
            if isinstance(error, CLIENT_ERRORS):
                raise as_read_error(self._name, error) from error
            raise
        self._limit(connection, deadline)  # opened too late for this exchange, it stays for the next one

    def _limit(self, connection: Any, deadline: float) -> None:
        left = deadline - time.monotonic()
        if left <= 0:
            raise ReadError("timeout", f"{self._name}: the time was used up before anything was asked")
        connection.socket_connect_timeout = connection.socket_timeout = min(self._connect_seconds, left)

    def place(self, _: bytes, /) -> str:
        """As PlacedLink: the one server."""
        return self._name

    def close(self) -> None:
        """As RedisLink."""
        self._own.connection.disconnect()


def socket_of(connection: Any) -> Any:
    """The connected socket. redis-py has no public way to it, so this is the one place that knows."""
    return connection._get_socket()


def _is_clean(connection: Any) -> bool:
    """Whether nothing is to be read: neither a late reply nor the server's end of the connection."""
    try:
        return not connection.can_read()
    except CLIENT_ERRORS:
        return False


def converse(sock: Any, requests: Sequence[Request], deadline: float) -> Iterator[list[Reply]]:
    """Sends all requests, then returns the replies to each; raises OSError (TimeoutError too) or HiredisError.

    Redis reads all it is sent before it stops to answer, so sending first cannot lock up. Answers are handed out
    while Redis still works on the rest.
    """
    sock.settimeout(_remaining(deadline))
    sock.sendall(b"".join([item.packed for item in requests]))
    reader: Any = hiredis.Reader(notEnoughData=_NOT_YET)
    buffer = bytearray(_READ_SIZE)
    for item in requests:
        replies: list[Reply] = []
        for _ in range(item.replies):
            while (reply := reader.gets()) is _NOT_YET:
                sock.settimeout(_remaining(deadline))
                size = sock.recv_into(buffer)
                if not size:
                    raise ConnectionResetError("the server closed the connection in the middle of its replies")
                reader.feed(buffer, 0, size)
            replies.append(reply)
        yield replies
    if reader.has_data():
        raise hiredis.ProtocolError("more replies than commands")


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for this collection is used up")
    return left
