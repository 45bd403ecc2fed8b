import logging
import signal
import socket
import threading
from collections.abc import Awaitable, Callable, MutableMapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from otel_queue.errors import OtelQueueError
from otel_queue.server.app import App
from otel_queue.server.listener import Listener
from tests.requirements_gate import Needs, missing
from tests.server.client import eventually, fetch
from tests.server.conftest import Serve
from tests.server.fake_exporter import BODY, FakeExporter


@pytest.fixture
def ipv6_loopback() -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError as error:
        missing(Needs.IPV6, f"cannot listen on ::1: {error}")


def test_a_listener_tells_whether_it_serves(serve: Serve, exporter: FakeExporter) -> None:
    assert serve().is_serving
    assert not Listener(App(exporter), "127.0.0.1", 0).is_serving


def test_port_zero_takes_a_free_port_and_tells_it(serve: Serve) -> None:
    first, second = serve(), serve()

    assert 0 < first.port != second.port > 0
    assert first.url == f"http://127.0.0.1:{first.port}/"
    assert fetch(first.port).body == fetch(second.port).body == BODY


def test_a_port_that_is_taken_is_a_clear_error(serve: Serve, exporter: FakeExporter) -> None:
    taken = serve().port
    listener = Listener(App(exporter), "127.0.0.1", taken)

    with pytest.raises(OtelQueueError, match=f"cannot listen on 127.0.0.1 port {taken}: address already in use; "):
        listener.start()

    assert not listener.is_serving
    listener.stop()


@pytest.mark.parametrize(
    ("host", "port", "message"),
    [
        ("203.0.113.1", 0, "cannot listen on 203.0.113.1 port 0: not an address of this machine"),
        ("no such host", 0, "the host name cannot be resolved"),
        ("a" * 70 + ".example", 0, "the host name cannot be resolved"),
        ("127.0.0.1", 65536, "cannot listen on port 65536; expected 0 to 65535"),
        ("127.0.0.1", -1, "cannot listen on port -1"),
    ],
)
def test_an_address_that_cannot_be_had_is_a_clear_error(
    exporter: FakeExporter, host: str, port: int, message: str
) -> None:
    with pytest.raises(OtelQueueError, match=message):
        Listener(App(exporter), host, port).start()


@pytest.mark.usefixtures("ipv6_loopback")
@pytest.mark.parametrize("host", ["::1", "[::1]"])
def test_an_ipv6_address_is_served(serve: Serve, host: str) -> None:
    listener = serve(host=host)

    assert fetch(listener.port, host="::1").body == BODY
    assert listener.url == f"http://[::1]:{listener.port}/"


@pytest.mark.usefixtures("ipv6_loopback")
@pytest.mark.parametrize("host", ["", "*", "::", "[::]"])
def test_every_address_means_ipv4_and_ipv6(serve: Serve, host: str) -> None:
    listener = serve(host=host)

    assert fetch(listener.port, host="::1").body == BODY
    assert fetch(listener.port, host="127.0.0.1").body == BODY
    assert listener.url == f"http://localhost:{listener.port}/"


def test_localhost_is_served_on_ipv4(serve: Serve) -> None:
    assert fetch(serve(host="localhost").port, host="127.0.0.1").body == BODY


def test_after_the_stop_the_port_is_free_and_no_thread_is_left(exporter: FakeExporter) -> None:
    before = set(threading.enumerate())
    listener = Listener(App(exporter), "127.0.0.1", 0)
    listener.start()
    assert fetch(listener.port).status == 200

    listener.stop()
    listener.stop()

    assert not listener.is_serving
    with socket.create_server(("127.0.0.1", listener.port)):
        eventually(lambda: not [t.name for t in set(threading.enumerate()) - before if t.name.startswith("otel-queue")])


def test_a_scrape_under_way_is_answered_before_the_stop(serve: Serve, exporter: FakeExporter) -> None:
    listener = serve()
    exporter.gate.clear()

    with ThreadPoolExecutor(2) as threads:
        reply = threads.submit(fetch, listener.port)
        eventually(lambda: exporter.at_once == 1)
        stopped = threads.submit(listener.stop, 20.0)
        eventually(lambda: listener._server.should_exit)
        exporter.gate.set()

        assert reply.result(timeout=30).body == BODY
        stopped.result(timeout=30)


def test_a_scrape_that_hangs_does_not_hold_up_the_stop(serve: Serve, exporter: FakeExporter) -> None:
    listener = serve()
    exporter.gate.clear()

    with ThreadPoolExecutor(1) as threads:
        reply = threads.submit(fetch, listener.port)
        eventually(lambda: exporter.at_once == 1)
        listener.stop(timeout=1.0)

        assert not listener.is_serving
        exporter.gate.set()
        error = reply.exception(timeout=30)
        assert error is not None or reply.result().status == 500


def test_an_application_that_does_not_start_is_an_error_with_its_cause() -> None:
    async def broken(
        scope: MutableMapping[str, Any],
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no"})

    listener = Listener(broken, "127.0.0.1", 0)

    with pytest.raises(OtelQueueError, match="the HTTP server did not start"):
        listener.start()
    with socket.create_server(("127.0.0.1", listener.port)):
        assert not listener.is_serving


def test_signals_stay_with_the_main_thread(serve: Serve) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]

    assert fetch(serve().port).status == 200

    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before


def test_requests_leave_no_trace_in_the_log(serve: Serve, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        listener = serve()
        for path in ("/metrics", "/nothing"):
            fetch(listener.port, path)

    assert [record.name for record in caplog.records if not record.name.startswith("asyncio")] == []


def test_the_log_handlers_of_the_process_are_left_alone(serve: Serve) -> None:
    handlers = list(logging.getLogger().handlers)

    serve()

    assert logging.getLogger().handlers == handlers
    assert logging.getLogger("uvicorn").handlers == []
