import pytest

from tests.faults.drill import IMPATIENT, errors, fill, is_down, is_up, shows, true_or_absent, wait_for_values
from tests.servers.otel_queue import serve
from tests.servers.proxy import slow_proxy
from tests.servers.redis import redis_server


def test_the_way_to_redis_becomes_slow() -> None:
    """While answers take longer than `timeout_seconds`: up 0 and timeouts, then no queue series. While they are
    merely slow, and afterwards: the values.
    """
    with redis_server() as server, slow_proxy(server.port) as proxy:
        fill(server.client())
        with serve(f"redis://127.0.0.1:{proxy.port}/0", config=IMPATIENT) as served:
            wait_for_values(served)
            proxy.delay = 0.4
            served.scrape_until(
                lambda scrape: is_down(scrape) and errors(scrape, "timeout") > 0 and not scrape.queue_names(),
                what="up is 0, a timeout is counted, and no queue series is left",
                always=true_or_absent,
            )
            for delay in (0.02, 0.0):
                proxy.delay = delay
                served.scrape_until(
                    lambda scrape: is_up(scrape) and shows(scrape),
                    what=f"the values are back at a delay of {delay} s",
                    always=true_or_absent,
                )


@pytest.mark.parametrize("fault", ["cut", "blackhole"])
def test_the_way_to_redis_is_interrupted(fault: str) -> None:
    """Cut: connections are reset and refused. Black-holed: they are accepted, and nothing comes back.
    Either way up 0, then no queue series; afterwards new connections are made and the values are back.
    """
    with redis_server() as server, slow_proxy(server.port) as proxy:
        fill(server.client())
        with serve(f"redis://127.0.0.1:{proxy.port}/0", config=IMPATIENT) as served:
            wait_for_values(served)
            getattr(proxy, fault)()
            served.scrape_until(
                lambda scrape: is_down(scrape) and not scrape.queue_names(),
                what="up is 0 and no queue series is left",
                always=true_or_absent,
            )
            proxy.restore()
            served.scrape_until(
                lambda scrape: is_up(scrape) and shows(scrape), what="the values are back", always=true_or_absent
            )
