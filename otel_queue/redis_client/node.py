"""One server, and the exchange with it: the one place that reads and writes a Redis socket."""

import os
import threading
import time
import weakref
from collections.abc import Iterator, Sequence
from typing import Any, Final

import hiredis
import redis

from otel_queue.redis_client.reasons import CLIENT_ERRORS, as_read_error
from otel_queue.redis_client.requests import Answers, Reply, Request

_READ_SIZE: Final = 1 << 16
_NOT_YET: Final = object()


class NodeLink:
    """One server: standalone, over a Unix socket, or the master that Sentinel names."""

    def __init__(self, pool: redis.ConnectionPool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._lock = threading.Lock()
        self._process = os.getpid()
        # A link that is let go of closes its sockets, whatever the order in which its parts are collected.
        weakref.finalize(self, pool.disconnect).atexit = False

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        """As RedisLink; one exchange at a time."""
        if self._process != os.getpid():
            # Forked: a thread that is not here may hold the lock. The pool sees to its connections itself.
            self._lock, self._process = threading.Lock(), os.getpid()
        with self._lock:
            connection = self._connected()
            try:
                yield from converse(socket_of(connection), requests, deadline)
            except BaseException as error:
                # Replies may still arrive, or the caller wants no more of them: this connection is spent.
                connection.disconnect()
                if isinstance(error, CLIENT_ERRORS):
                    raise as_read_error(self._name, error) from error
                raise
            finally:
                self._pool.release(connection)

    def _connected(self) -> Any:
        try:
            return self._pool.get_connection()
        except CLIENT_ERRORS as error:
            self._pool.disconnect()  # what broke in its handshake must not be taken for ready later
            raise as_read_error(self._name, error) from error

    def close(self) -> None:
        """As RedisLink."""
        self._pool.disconnect()


def socket_of(connection: Any) -> Any:
    """The connected socket. redis-py has no public way to it, so this is the one place that knows."""
    return connection._get_socket()


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
