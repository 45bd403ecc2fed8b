"""Lets others come between any two commands of an exchange, as they do in a Redis with other clients."""

import contextlib
import socket
import threading
from collections.abc import Callable, Iterator

import hiredis


@contextlib.contextmanager
def interleaved(target_port: int, between: Callable[[], object]) -> Iterator[int]:
    """A port that passes commands on to the target one by one, and calls `between` after each has been answered."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=_accept, args=(listener, target_port, between))
        thread.start()
        yield listener.getsockname()[1]
        with contextlib.suppress(OSError):
            listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def _accept(listener: socket.socket, target_port: int, between: Callable[[], object]) -> None:
    """One connection after the other: a test's reader has one at a time."""
    with contextlib.suppress(OSError):
        while True:
            client, _ = listener.accept()
            with client, socket.create_connection(("127.0.0.1", target_port)) as target:
                _pass_on(client, target, between)


def _pass_on(client: socket.socket, target: socket.socket, between: Callable[[], object]) -> None:
    commands, replies = hiredis.Reader(), hiredis.Reader()
    while data := client.recv(65_536):
        commands.feed(data)
        while (words := commands.gets()) is not False:
            target.sendall(hiredis.pack_command(tuple(words)))
            answer = b""
            while replies.gets() is False:
                answer += (part := target.recv(65_536))
                replies.feed(part)
            between()
            client.sendall(answer)
