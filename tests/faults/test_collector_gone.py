import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.drill import IMPATIENT, errors, fill, is_down, is_up, shows, true_or_absent, wait_for_values
from tests.servers.collector import collector
from tests.servers.otel_queue import ServeProcess, serve
from tests.servers.process import free_port, wait_until
from tests.servers.proxy import Proxy, slow_proxy
from tests.servers.redis import RedisServer
from tests.servers.redis import redis_server as run_redis

CONFIGS = Path(__file__).parents[2] / "collector-config"
SHUTDOWN_SECONDS = 2.0
# What a loaded machine may add to the limit for the last push.
ALLOWANCE_SECONDS = 8.0
CONFIG = f"{IMPATIENT}\n[otlp]\nshutdown_timeout_seconds = {SHUTDOWN_SECONDS}\n"


def pushing_to(port: int, protocol: str, *, timeout_seconds: int, interval_ms: int = 300) -> dict[str, str]:
    return {
        "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{port}",
        "OTEL_EXPORTER_OTLP_PROTOCOL": protocol,
        "OTEL_EXPORTER_OTLP_TIMEOUT": str(timeout_seconds),
        "OTEL_METRIC_EXPORT_INTERVAL": str(interval_ms),
    }


@pytest.fixture
def black_hole() -> Iterator[Proxy]:
    """Takes what is sent to it and answers nothing."""
    with slow_proxy(free_port()) as proxy:
        proxy.blackhole()
        yield proxy


def ends_on_sigterm(served: ServeProcess) -> None:
    served.process.send_signal(signal.SIGTERM)
    assert served.process.wait(SHUTDOWN_SECONDS + ALLOWANCE_SECONDS) == 0
    assert "Traceback" not in served.process.logs()


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_no_collector_is_there(redis_server: RedisServer, protocol: str) -> None:
    """During: the scrape shows all queues; the push's lane is down and its failures are counted.
    SIGTERM ends the process with 0, without waiting for the collector beyond `shutdown_timeout_seconds`.
    """
    fill(redis_server.client())
    environment = pushing_to(free_port(), protocol, timeout_seconds=1)
    with serve(redis_server.url, config=CONFIG, environment=environment) as served:
        wait_for_values(served)
        failed = served.scrape_until(
            lambda scrape: errors(scrape, "export", "otlp") > 0, what="a failed push is counted"
        )
        assert is_down(failed, "otlp")
        assert is_up(failed)
        assert shows(failed)
        ends_on_sigterm(served)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_the_collector_takes_the_push_and_never_answers(
    redis_server: RedisServer, black_hole: Proxy, protocol: str
) -> None:
    """During: no scrape waits for the push that hangs. SIGTERM ends the process long before that push gives up."""
    fill(redis_server.client())
    environment = pushing_to(black_hole.port, protocol, timeout_seconds=600, interval_ms=600_000)
    with serve(redis_server.url, config=CONFIG, environment=environment) as served:
        wait_for_values(served)
        wait_until(lambda: black_hole.connections, what="a push is under way")
        wait_for_values(served)
        ends_on_sigterm(served)


@pytest.mark.parametrize("protocol", ["http/protobuf", "grpc"])
def test_a_timeout_meant_in_milliseconds_hides_no_collector_that_hangs(
    redis_server: RedisServer, black_hole: Proxy, protocol: str
) -> None:
    """10000, as a Go worker has it, would be hours here: the push is given up, its lane is down and says so."""
    environment = pushing_to(black_hole.port, protocol, timeout_seconds=10_000)
    with serve(redis_server.url, config=CONFIG, environment=environment) as served:
        down = served.scrape_until(lambda scrape: is_down(scrape, "otlp"), what="the push is given up")
        assert errors(down, "export", "otlp") > 0
        ends_on_sigterm(served)


def test_neither_redis_nor_the_collector_answers(black_hole: Proxy) -> None:
    """SIGTERM ends the process with 0, though both the reading and the push before the end hang."""
    environment = pushing_to(black_hole.port, "http/protobuf", timeout_seconds=600, interval_ms=600_000)
    with run_redis() as server, serve(server.url, config=CONFIG, environment=environment) as served:
        fill(server.client())
        wait_for_values(served)
        server.pause()
        served.scrape_until(is_down, what="up is 0", always=true_or_absent)
        ends_on_sigterm(served)


@pytest.mark.timeout(900)  # the first build of the Collector takes minutes
def test_the_collector_comes_back(redis_server: RedisServer) -> None:
    """During: failures are counted. After: the push's lane is up again; what failed stays counted."""
    fill(redis_server.client())
    gateway_config = (CONFIGS / "gateway.yaml").read_text()
    with collector(gateway_config) as gateway:
        environment = pushing_to(gateway.http_port, "http/protobuf", timeout_seconds=1)
        with serve(redis_server.url, config=CONFIG, environment=environment) as served:
            served.scrape_until(lambda scrape: is_up(scrape, "otlp"), what="a push has arrived")
            gateway.process.kill()
            served.scrape_until(
                lambda scrape: is_down(scrape, "otlp") and errors(scrape, "export", "otlp") > 0,
                what="a failed push is counted",
            )
            gateway.process.start()
            up = served.scrape_until(lambda scrape: is_up(scrape, "otlp"), what="a push has arrived again")
            assert errors(up, "export", "otlp") > 0
            ends_on_sigterm(served)
