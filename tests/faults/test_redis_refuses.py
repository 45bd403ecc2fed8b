import time

from otel_queue.asynq import keys
from otel_queue.demo.broker import Broker
from otel_queue.demo.heartbeat import beat_scheduler, beat_server
from tests.faults.drill import (
    IMPATIENT,
    PENDING,
    PROCESSED,
    QUEUE,
    errors,
    fill,
    is_down,
    is_up,
    shows,
    true_or_absent,
    wait_for_values,
)
from tests.inspector.filled import ENTRIES, SERVER
from tests.servers.otel_queue import serve
from tests.servers.redis import redis_server

MEMORY = "asynq_queue_memory_usage_approx_bytes"
COUNTED_FROM_ENTRIES = {
    "asynq_servers", "asynq_server_concurrency", "asynq_queue_servers", "asynq_queue_concurrency",
    "asynq_queue_busy_workers", "asynq_scheduler_entries", "asynq_scheduler_lateness_seconds",
}  # fmt: skip
SERVER_KEY = keys.server(SERVER.host, SERVER.pid, SERVER.server_id)
SCHEDULER_KEY = keys.scheduler("host-a", 7, "scheduler-1")
READER = (
    "reader on >secret resetchannels -@all +ping +select +time +multi +exec +discard +smembers +sismember +scard "
    "+sscan +llen +lrange +zcard +zcount +zscore +zmscore +zrange +zrangebyscore +zrevrange +get +mget +exists "
    "+hget +hmget +hvals +hlen ~asynq:*"
)


def test_memory_usage_is_not_permitted() -> None:
    """The user may read the queues and not ask for memory: that one metric is absent and its refusal is counted;
    all else is there, and the queue lane's up stays 1. After the permission is given, the metric appears.
    """
    with redis_server(users=[READER]) as server:
        fill(server.client())
        with serve(server.url_for("reader", "secret"), config=IMPATIENT) as served:
            refused = served.scrape_until(
                lambda scrape: shows(scrape) and errors(scrape, "permission", "memory") > 0,
                what="the values are shown and the refusal is counted",
                always=true_or_absent,
            )
            assert is_up(refused)
            assert refused.values(MEMORY) == []
            server.client().acl_setuser("reader", enabled=True, commands=["+memory|usage"])
            allowed = served.scrape_until(lambda scrape: scrape.values(MEMORY), what="memory usage is shown")
            assert allowed.value(MEMORY, queue=QUEUE)


def test_a_user_without_any_permission_is_refused() -> None:
    """During: up 0, reason permission, nothing about queues. After: the values."""
    with redis_server(users=["reader on >secret resetchannels -@all"]) as server:
        fill(server.client())
        with serve(server.url_for("reader", "secret"), config=IMPATIENT) as served:
            served.scrape_until(
                lambda scrape: errors(scrape, "permission") > 0 and is_down(scrape),
                what="up is 0 and the refusal is counted",
                always=lambda scrape: _assert_nothing(scrape.queue_names()),
            )
            server.client().execute_command("ACL", "SETUSER", *READER.split())
            wait_for_values(served)


def _assert_nothing(names: set[str]) -> None:
    assert names == set()


def test_one_key_of_one_queue_holds_another_type() -> None:
    """During: what needs that key is absent for that queue alone, counted as wrong_type; its other numbers and
    the other queue are there. After: all of it.
    """
    with redis_server() as server:
        client = server.client()
        fill(client)
        fill(client, "broken")
        archived = keys.queue_key("broken", "archived")
        client.set(archived, "not a sorted set")
        with serve(server.url, config=IMPATIENT) as served:
            partial = served.scrape_until(
                lambda scrape: shows(scrape) and errors(scrape, "wrong_type") > 0,
                what="the sound queue is shown and the wrong type is counted",
                always=true_or_absent,
            )
            assert partial.values("asynq_tasks_enqueued_total", queue="broken", state="archived") == []
            # A size without its archived tasks would be wrong.
            assert partial.values("asynq_queue_size", queue="broken") == []
            assert partial.value("asynq_tasks_enqueued_total", queue="broken", state="pending") == PENDING
            assert partial.value("asynq_tasks_processed_total", queue="broken") == PROCESSED
            assert is_up(partial)
            client.delete(archived)
            served.scrape_until(lambda scrape: shows(scrape, "broken"), what="the mended queue is shown")


def test_a_key_of_another_type_takes_convoys_gauge_away_and_does_not_lower_it() -> None:
    """Convoy's gauge is a sum over states: with one of them unknown it is absent, not smaller."""
    with redis_server() as server:
        client = server.client()
        fill(client)
        client.set(keys.queue_key(QUEUE, "retry"), "not a sorted set")
        with serve(server.url, config=IMPATIENT) as served:
            partial = served.scrape_until(
                lambda scrape: errors(scrape, "wrong_type") > 0, what="the wrong type is counted"
            )
            assert partial.value("convoy_event_queue_scheduled_total") is None
            assert partial.value("asynq_tasks_enqueued_total", queue=QUEUE, state="pending") == PENDING


def test_servers_workers_and_scheduler_entries_of_which_one_cannot_be_decoded_are_unknown_and_not_fewer() -> None:
    """During: what would count them is absent, reason undecodable, and the queues are there. After: all of it."""
    with redis_server() as server:
        client = server.client()
        fill(client)
        broker = Broker(client, time.time)
        beat_server(broker, SERVER, [])
        beat_scheduler(broker, SCHEDULER_KEY, ENTRIES)
        for key in (SERVER_KEY, SCHEDULER_KEY):  # a drill may take longer than their ten seconds
            client.persist(key)
        client.zadd(keys.SERVERS, {SERVER_KEY: time.time() + 3600})
        client.zadd(keys.SCHEDULERS, {SCHEDULER_KEY: time.time() + 3600})
        client.hset(keys.workers_of(SERVER_KEY), "broken", b"\xff")
        with serve(server.url, config=IMPATIENT) as served:
            partial = served.scrape_until(
                lambda scrape: shows(scrape) and errors(scrape, "undecodable") > 0,
                what="the queue is shown and the broken worker is counted",
            )
            assert partial.value("asynq_queue_servers", queue="filled") == 1
            assert partial.values("asynq_queue_busy_workers") == []

            broken = keys.server("host-b", 1, "server-2")
            client.zadd(keys.SERVERS, {broken: time.time() + 3600})
            client.set(broken, b"\xff")
            client.lpush(SCHEDULER_KEY, b"\xff")
            absent = served.scrape_until(
                lambda scrape: shows(scrape) and not scrape.queue_names() & COUNTED_FROM_ENTRIES,
                what="servers and scheduler entries are absent",
                always=true_or_absent,
            )
            assert is_up(absent)

            client.delete(broken, keys.workers_of(SERVER_KEY))
            client.lpop(SCHEDULER_KEY)
            served.scrape_until(
                lambda scrape: (
                    scrape.value("asynq_queue_servers", queue="filled") == 1
                    and scrape.value("asynq_queue_busy_workers", queue="filled") == 0
                    and scrape.value("asynq_scheduler_entries") == len(ENTRIES)
                ),
                what="servers, workers and scheduler entries are shown",
            )


def test_the_list_of_queues_holds_another_type() -> None:
    """asynq:queues cannot be read, so nobody knows which queues there are: absent and counted, not "no queues"."""
    with redis_server() as server:
        client = server.client()
        client.set(keys.QUEUES, "not a set")
        with serve(server.url, config=IMPATIENT) as served:
            scrape = served.scrape_until(
                lambda scrape: errors(scrape, "wrong_type") > 0, what="the wrong type is counted"
            )
            assert scrape.value("convoy_event_queue_scheduled_total") is None
            client.delete(keys.QUEUES)
            fill(client)
            wait_for_values(served)


def test_a_read_only_replica_is_as_good_as_its_master() -> None:
    """A replica shows what its master shows, without an error. After the master is gone it goes on, since it
    serves what it has; one told not to serve stale data answers MASTERDOWN, which is up 0 and then absence.
    """
    with redis_server() as master, redis_server(replica_of=master) as replica:
        fill(master.client())
        with (
            serve(master.url, config=IMPATIENT) as of_master,
            serve(replica.url, config=IMPATIENT) as of_replica,
        ):
            memory_too = "the values are shown, with memory usage"
            wanted = of_master.scrape_until(lambda each: shows(each) and each.values(MEMORY), what=memory_too)
            found = of_replica.scrape_until(lambda each: shows(each) and each.values(MEMORY), what=memory_too)
            assert found.queue_names() == wanted.queue_names()
            assert found.values("otel_queue_errors_total") == []
            master.kill()
            of_master.scrape_until(lambda scrape: not scrape.queue_names(), what="the master's values are gone")
            assert shows(of_replica.scrape())
            replica.client().config_set("replica-serve-stale-data", "no")
            of_replica.scrape_until(
                lambda scrape: errors(scrape, "master_down") > 0 and not scrape.queue_names(),
                what="MASTERDOWN is counted and no queue series is left",
                always=true_or_absent,
            )
