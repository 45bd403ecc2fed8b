"""A server that answers as a test says, over a real socket: a late reply, half of one, one too many."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import hiredis

from otel_queue.config import RedisConfig
from otel_queue.redis_client import RedisLink, connect

# From the number of a connection, beginning with 1, and a command's words to the bytes that are sent; None hangs up.
Answer = Callable[[int, list[bytes]], bytes | None]


class Scripted:
    """`received` is each command with the number of the connection over which it came."""

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.received: list[tuple[int, list[bytes]]] = []
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._open: list[socket.socket] = []

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._open.append(connection)
                thread = threading.Thread(target=self._serve, args=(len(self._open), connection), daemon=True)
                self._threads.append(thread)
                thread.start()

    def _serve(self, number: int, connection: socket.socket) -> None:
        reader = hiredis.Reader()
        with contextlib.suppress(OSError), connection:
            while data := connection.recv(65_536):
                reader.feed(data)
                while (words := reader.gets()) is not False:
                    self.received.append((number, words))
                    answer = self._answer(number, words)
                    if answer is None:
                        return
                    connection.sendall(answer)

    def start(self) -> None:
        self._threads[0].start()

    def stop(self) -> None:
        for each in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@contextlib.contextmanager
def serving(answer: Answer) -> Iterator[Scripted]:
    """The server while it runs."""
    server = Scripted(answer)
    server.start()
    try:
        yield server
    finally:
        server.stop()


@contextlib.contextmanager
def scripted(
    answer: Answer, url: str = "redis://127.0.0.1:{port}/0", **config: Any
) -> Iterator[tuple[Scripted, RedisLink]]:
    """The server, and a link to it."""
    with (
        serving(answer) as server,
        contextlib.closing(connect(RedisConfig(url=url.format(port=server.port), **config))) as link,
    ):
        yield server, link


def encoded(value: object) -> bytes:
    """Bytes, numbers and lists as Redis sends them."""
    match value:
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(value), value)
        case int():
            return b":%d\r\n" % value
        case list():
            return b"*%d\r\n%b" % (len(value), b"".join(map(encoded, value)))
    raise TypeError(value)
