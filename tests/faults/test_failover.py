from otel_queue.asynq import keys
from tests.faults.drill import IMPATIENT, QUEUE, fill, is_up, shows, true_or_absent, wait_for_values
from tests.servers.otel_queue import serve
from tests.servers.process import wait_until
from tests.servers.redis_cluster import redis_cluster
from tests.servers.redis_sentinel import redis_sentinel


def test_sentinel_makes_the_replica_the_master() -> None:
    """During: the last values until they are stale, never a wrong one. After: the new master's values, without a
    restart and without a change of configuration.
    """
    with redis_sentinel() as sentinels, serve(sentinels.url, config=IMPATIENT) as served:
        with sentinels.client() as client:
            fill(client)
            client.wait(1, 5_000)
        wait_for_values(served)
        sentinels.failover()
        served.scrape_until(
            lambda scrape: is_up(scrape) and shows(scrape), what="the values are back", always=true_or_absent
        )
        # Told apart from values that merely have not gone stale: this one only the new master knows.
        with sentinels.client() as client:
            client.set(keys.queue_key(QUEUE, "paused"), 1)
        served.scrape_until(
            lambda scrape: scrape.value("asynq_queue_paused_total", queue=QUEUE) == 1, what="the pause is shown"
        )


def test_a_cluster_loses_one_of_its_masters() -> None:
    """The queues of that node become absent, those of the others stay. After: all are back."""
    with redis_cluster("--cluster-require-full-coverage", "no") as cluster:
        client = cluster.client()
        lost = cluster.nodes[2]
        names = [f"q{number}" for number in range(30)]
        gone = [name for name in names if cluster.port_of(keys.queue_key(name, "pending")) == lost.port]
        kept = [name for name in names if name not in gone]
        assert gone
        assert kept
        # Were the list of queues on the lost node, everything would be unknown: another drill.
        assert cluster.port_of(keys.QUEUES) != lost.port
        for name in names:
            fill(client, name)
        with serve(cluster.url, config=IMPATIENT) as served:
            served.scrape_until(lambda scrape: all(shows(scrape, name) for name in names), what="all are shown")
            lost.kill()
            served.scrape_until(
                lambda scrape: not any(scrape.values("asynq_queue_size", queue=name) for name in gone),
                what="the lost node's queues are absent",
            )
            served.scrape_until(
                lambda scrape: all(shows(scrape, name) for name in kept), what="the other queues are shown"
            )
            lost.start()
            wait_until(cluster.is_whole, what="the cluster is whole again")
            for name in gone:
                fill(client, name)
            served.scrape_until(lambda scrape: all(shows(scrape, name) for name in names), what="all are back")
