"""A TCP proxy that makes a good server slow, mute or gone."""

import asyncio
import contextlib
import threading
from collections.abc import Coroutine, Iterator
from typing import Any

from tests.servers.process import free_port

CHUNK_BYTES = 65_536


class Proxy:
    """Passes bytes between its `port` and the target's, `delay` seconds late in each direction.

    `delay` may be changed while connections are open.
    """

    def __init__(self, target_port: int, delay_seconds: float) -> None:
        self.port = free_port()
        self.delay = delay_seconds
        self._target_port = target_port
        self._is_mute = False
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name=f"proxy-{self.port}", daemon=True)
        self._listener: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    @property
    def connections(self) -> int:
        """How many are open now."""
        return len(self._connections)

    def cut(self) -> None:
        """Open connections are closed and new ones refused."""
        self._run(self._close())

    def blackhole(self) -> None:
        """Connections are accepted and nothing passes any more, in either direction; the target need not exist."""
        self._is_mute = True

    def restore(self) -> None:
        """New connections pass again; those from before are closed."""
        self._is_mute = False
        self._run(self._close())
        self._run(self._listen())

    def start(self) -> None:
        self._thread.start()
        self._run(self._listen())

    def stop(self) -> None:
        self._run(self._close())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def _run(self, work: Coroutine[Any, Any, None]) -> None:
        asyncio.run_coroutine_threadsafe(work, self._loop).result(timeout=10)

    async def _listen(self) -> None:
        self._listener = await asyncio.start_server(self._accept, "127.0.0.1", self.port)

    async def _close(self) -> None:
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        # Let handlers of connections that were just accepted register themselves.
        await asyncio.sleep(0)
        for task in list(self._connections):
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        # Closed politely, one with bytes that nobody takes would outlive the loop.
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()
        for _ in range(3):
            await asyncio.sleep(0)  # their ends are told in the loop's next turns

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.add(task)
        # A cancelled handler would be reported by asyncio as an unhandled exception.
        with contextlib.suppress(OSError, asyncio.CancelledError):
            await self._join(reader, writer)
        self._connections.discard(task)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with contextlib.closing(writer):
            if self._is_mute:
                await asyncio.Event().wait()
            target_reader, target_writer = await asyncio.open_connection("127.0.0.1", self._target_port)
            self._writers.add(target_writer)
            with contextlib.closing(target_writer):
                ways = [
                    asyncio.create_task(self._pass_on(reader, target_writer)),
                    asyncio.create_task(self._pass_on(target_reader, writer)),
                ]
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _pass_on(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Reads at once and writes late, so that the delay is a latency and not a limit of throughput."""
        waiting: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue()

        async def read() -> None:
            while chunk := await reader.read(CHUNK_BYTES):
                waiting.put_nowait((self._loop.time() + self.delay, chunk))
            waiting.put_nowait((self._loop.time() + self.delay, b""))

        reading = asyncio.create_task(read())
        try:
            while True:
                due, chunk = await waiting.get()
                await asyncio.sleep(due - self._loop.time())
                if not chunk:
                    return
                if not self._is_mute:
                    writer.write(chunk)
                    await writer.drain()
        finally:
            reading.cancel()


@contextlib.contextmanager
def slow_proxy(target_port: int, delay_seconds: float = 0.0) -> Iterator[Proxy]:
    proxy = Proxy(target_port, delay_seconds)
    proxy.start()
    try:
        yield proxy
    finally:
        proxy.stop()
