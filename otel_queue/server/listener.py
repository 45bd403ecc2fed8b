"""Runs the ASGI application on a socket, in a thread of its own."""

import asyncio
import errno
import logging
import resource
import socket
import ssl
import threading
from collections.abc import Callable
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from otel_queue.errors import OtelQueueError

_log: Final = logging.getLogger(__name__)

_HEAD_BYTES: Final = 16 * 1024
_HEAD_SECONDS: Final = 10.0
_HANDSHAKE_SECONDS: Final = 10.0
_WRITE_SECONDS: Final = 60.0
_KEEP_ALIVE_SECONDS: Final = 75  # longer than the usual scrape intervals, so that a scraper keeps its connection
_CONNECTIONS: Final = 512
_ACCEPTED_AT_ONCE: Final = 64
_WAITING: Final = 2048  # in the kernel, until they are accepted
_START_SECONDS: Final = 10.0
_WILDCARDS: Final = ("", "*", "::")


class Listener:
    """Serves `app` on `host`:`port` between `start` and `stop`; also a context manager.

    A `host` of "", "*" or "::" means every address, IPv4 and IPv6. Port 0 takes a free port. Signals stay
    with the main thread.
    """

    def __init__(
        self,
        app: Callable[..., Any],
        host: str,
        port: int,
        *,
        ssl_context: ssl.SSLContext | None = None,
        head_seconds: float = _HEAD_SECONDS,
        write_seconds: float = _WRITE_SECONDS,
    ) -> None:
        self._host = host.removeprefix("[").removesuffix("]")
        self._port = port
        self._scheme = "https" if ssl_context else "http"
        most_connections, accepted_at_once = _bounds()
        self._config = uvicorn.Config(
            app,
            http=_protocol(head_seconds, write_seconds, most_connections),
            ws="none",
            interface="asgi3",
            lifespan="on",
            log_config=None,
            log_level="warning",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=accepted_at_once,
            timeout_keep_alive=_KEEP_ALIVE_SECONDS,
            h11_max_incomplete_event_size=_HEAD_BYTES,
        )
        self._config.load()
        self._config.ssl = ssl_context
        self._server = _Server(self._config)
        self._thread: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> "Listener":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def port(self) -> int:
        """The port bound, once started."""
        return self._port

    @property
    def is_serving(self) -> bool:
        """Whether requests are answered: from `start` to `stop`, unless the server fails in between."""
        return self._thread is not None and self._thread.is_alive()

    @property
    def url(self) -> str:
        """Where a client on this machine finds the landing page, once started."""
        host = "localhost" if self._host in _WILDCARDS else self._host
        return f"{self._scheme}://{f'[{host}]' if ':' in host else host}:{self._port}/"

    def start(self) -> None:
        """Returns when connections are accepted. Raises OtelQueueError when the address cannot be had."""
        listening = _bind(self._host, self._port)
        self._port = listening.getsockname()[1]
        self._thread = threading.Thread(target=self._run, args=(listening,), name="otel-queue-http", daemon=True)
        self._thread.start()
        if not self._server.settled.wait(_START_SECONDS) or self._failure is not None:
            self.stop()
            raise OtelQueueError(f"the HTTP server did not start: {self._failure!r}") from self._failure

    def stop(self, timeout: float = 5.0) -> None:
        """Stops accepting, lets answers under way end, cuts what is left after about `timeout` seconds."""
        thread = self._thread
        if thread is None:
            return
        self._config.timeout_graceful_shutdown = max(1, round(timeout))
        self._server.should_exit = True
        thread.join(timeout + 2.0)
        if thread.is_alive():
            self._server.force_exit = True
            thread.join(2.0)
        if thread.is_alive():
            _log.error("the HTTP server did not stop within %.0f seconds and is left behind", timeout + 4.0)
        self._thread = None

    def _run(self, listening: socket.socket) -> None:
        try:
            with asyncio.Runner(loop_factory=_Loop) as runner:
                runner.run(self._server.serve(sockets=[listening]))
        except BaseException as error:  # uvicorn reports some failures through SystemExit
            self._failure = error
            _log.error("the HTTP server ended: %r", error)
        finally:
            listening.close()
            self._server.settled.set()


class _Server(uvicorn.Server):
    """Tells when it accepts, and leaves no connection behind."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.settled = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then wakes whoever waits for it."""
        await super().startup(sockets)
        for listening in sockets or ():
            listening.listen(_WAITING)  # asyncio takes one number for what waits and for what it accepts at once
        self.settled.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """As uvicorn's, then cuts the connections that it stopped waiting for."""
        await super().shutdown(sockets)
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await asyncio.sleep(0)  # connection_lost runs in the loop's next turn


class _Loop(asyncio.SelectorEventLoop):
    """An event loop whose servers do not wait a minute for a TLS handshake, as asyncio's do."""

    async def create_server(self, *args: Any, **kwargs: Any) -> asyncio.Server:
        """As asyncio's, with a shorter time for the handshake."""
        if kwargs.get("ssl") is not None:
            kwargs["ssl_handshake_timeout"] = _HANDSHAKE_SECONDS
            kwargs["ssl_shutdown_timeout"] = _HANDSHAKE_SECONDS
        return await super().create_server(*args, **kwargs)


class _Deadline:
    """Calls `act` when `seconds` pass between start and stop; a second start changes nothing."""

    def __init__(self, seconds: float, act: Callable[[], None]) -> None:
        self._seconds = seconds
        self._act = act
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(self._seconds, self._act)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _bounds() -> tuple[int, int]:
    """How many connections there may be, and how many are accepted in one turn of the event loop.

    Of the file descriptors that the process may have, half are for connections, and Redis needs some. Those past the
    bound have one too until they are closed, three turns later.
    """
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return _CONNECTIONS, _ACCEPTED_AT_ONCE
    return min(_CONNECTIONS, descriptors // 2), min(_ACCEPTED_AT_ONCE, max(1, descriptors // 16))


def _protocol(head_seconds: float, write_seconds: float, most_connections: int) -> type[H11Protocol]:
    """uvicorn's HTTP/1.1 protocol with bounds for clients that send or take nothing, send nonsense, or are many."""

    class DeadlineProtocol(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn's own
            super().connection_made(transport)
            self.head = _Deadline(head_seconds, transport.abort)
            self.write = _Deadline(write_seconds, transport.abort)
            if transport.get_extra_info("sslcontext") is None:
                # Writing then counts as paused until the last byte is taken. asyncio's TLS transport would take 0
                # for "always paused"; what it holds back at the end falls to its shutdown's time limit.
                transport.set_write_buffer_limits(high=0)
            if len(self.connections) > most_connections:
                transport.abort()
            self.watch_head()

        def connection_lost(self, exc: Exception | None) -> None:
            super().connection_lost(exc)
            self.head.stop()
            self.write.stop()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            self.watch_head()

        def on_response_complete(self) -> None:
            super().on_response_complete()
            pipelined, _ = self.conn.trailing_data
            if pipelined:
                self.watch_head()

        def send_400_response(self, msg: str) -> None:
            """As uvicorn's, also while an answer is under way: nothing more of that one is sent, begun or not."""
            if self.cycle is not None and not self.cycle.response_complete:
                self.cycle.disconnected = True
                self.cycle.message_event.set()
            try:
                super().send_400_response(msg)
            except h11.LocalProtocolError:  # there is an answer already
                self.transport.close()

        def _should_upgrade(self) -> bool:
            return False  # the request is answered as it is; uvicorn would also advise in the log to install packages

        def pause_writing(self) -> None:
            super().pause_writing()
            self.write.start()

        def resume_writing(self) -> None:
            super().resume_writing()
            self.write.stop()

        def watch_head(self) -> None:
            """A head's time runs from the connection on, later from its first byte, until it is complete."""
            answering = self.cycle is not None and not self.cycle.response_complete
            if answering or self.transport.is_closing():
                self.head.stop()
            else:
                self.head.start()

    return DeadlineProtocol


def _bind(host: str, port: int) -> socket.socket:
    if not 0 <= port <= 65535:
        raise OtelQueueError(f"cannot listen on port {port}; expected 0 to 65535")
    try:
        if host in _WILDCARDS:
            return _bind_everywhere(port)
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name such as localhost has several addresses: IPv4 is what most scrape configurations spell out.
        family, _, _, _, address = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return socket.create_server(address, family=family)
    except (OSError, UnicodeError) as error:
        raise OtelQueueError(f"cannot listen on {host or '*'} port {port}: {_reason(error)}") from error


def _bind_everywhere(port: int) -> socket.socket:
    if socket.has_dualstack_ipv6():
        try:
            return socket.create_server(("", port), family=socket.AF_INET6, dualstack_ipv6=True)
        except OSError as error:
            if error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise
    return socket.create_server(("", port))


def _reason(error: OSError | UnicodeError) -> str:
    if isinstance(error, UnicodeError | socket.gaierror):
        return "the host name cannot be resolved; give an address of this machine"
    advice = {
        errno.EADDRINUSE: "address already in use; stop what listens there or choose another port",
        errno.EACCES: "not permitted; choose a port above 1023",
        errno.EADDRNOTAVAIL: "not an address of this machine",
    }
    return advice.get(error.errno or 0, error.strerror or repr(error))
