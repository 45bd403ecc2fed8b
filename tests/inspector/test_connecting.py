"""How often a server that cannot be used is tried: once per collection, for the next one comes anyway."""

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from otel_queue.errors import ReadError
from tests.inspector.filled import inspecting


class HangingUp:
    """Accepts connections, counts them and closes each at once."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.connections = 0
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.connections += 1
                connection.close()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._thread.join()


@pytest.fixture
def servers() -> Iterator[list[HangingUp]]:
    servers = [HangingUp(), HangingUp()]
    yield servers
    for server in servers:
        server.close()


@pytest.mark.parametrize("form", ["redis-sentinel://{}/0?master=queues", "redis-cluster://{}"])
def test_each_of_several_servers_is_tried_once(servers: list[HangingUp], form: str) -> None:
    url = form.format(",".join(f"127.0.0.1:{server.port}" for server in servers))
    with inspecting(url) as inspector:
        for collections in (1, 2):
            with pytest.raises(ReadError) as refused:
                inspector.snapshot()
            assert refused.value.reason == "connection"
            # A connection that was found closed before anything was sent over it is opened once more.
            assert all(collections <= server.connections <= 2 * collections for server in servers)


def test_a_single_server_is_tried_once(servers: list[HangingUp]) -> None:
    with inspecting(f"redis://127.0.0.1:{servers[0].port}/0") as inspector, pytest.raises(ReadError) as refused:
        inspector.snapshot()
    assert refused.value.reason == "connection"
    assert 1 <= servers[0].connections <= 2


def test_what_cannot_be_reached_is_named_without_credentials(servers: list[HangingUp]) -> None:
    hosts = f"127.0.0.1:{servers[0].port}"
    for form in ("redis://{}/0", "redis-sentinel://{}/0?master=queues", "redis-cluster://{}"):
        url = form.format(f"somebody:confidential@{hosts}")
        with inspecting(url) as inspector, pytest.raises(ReadError) as refused:
            inspector.snapshot()
        assert hosts in str(refused.value)
        assert "confidential" not in str(refused.value)
        assert "somebody" not in str(refused.value)
