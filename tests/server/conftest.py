from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import trustme

from otel_queue.server.app import App
from otel_queue.server.listener import Listener
from tests.server.fake_exporter import FakeExporter

Serve = Callable[..., Listener]


@pytest.fixture
def exporter() -> Iterator[FakeExporter]:
    fake = FakeExporter()
    yield fake
    fake.gate.set()


@pytest.fixture(scope="session")
def stopping() -> Iterator[ThreadPoolExecutor]:
    """Stops listeners aside: each takes a fifth of a second, which the next test need not wait for."""
    with ThreadPoolExecutor(4) as threads:
        yield threads


@pytest.fixture
def serve(exporter: FakeExporter, stopping: ThreadPoolExecutor) -> Iterator[Serve]:
    """Starts listeners on free ports; arguments of the listener by name, all others go to the app."""
    started: list[Listener] = []

    def start(*, host: str = "127.0.0.1", **options: Any) -> Listener:
        own = {key: options.pop(key) for key in ("ssl_context", "head_seconds", "write_seconds") if key in options}
        listener = Listener(App(exporter, **options), host, 0, **own)
        listener.start()
        started.append(listener)
        return listener

    yield start
    exporter.gate.set()
    for listener in started:
        stopping.submit(listener.stop)


@pytest.fixture(scope="session")
def authority() -> trustme.CA:
    return trustme.CA()
