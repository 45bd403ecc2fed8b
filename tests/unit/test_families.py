from dataclasses import replace

from otel_queue.asynq.families import SOURCE, memory_families, snapshot_families, task_type_families
from otel_queue.asynq.message import SchedulerEntry, ServerInfo, WorkerInfo
from otel_queue.asynq.queue_info import QueueInfo, ServerStatus, Snapshot
from otel_queue.catalog import CATALOG
from otel_queue.samples import Family

QUEUE = QueueInfo(
    queue="CreateEventQueue", memory_usage=None, latency=1.5, size=28, groups=1, pending=1, active=2,
    scheduled=3, retry=4, archived=5, completed=6, aggregating=7, processed=8, failed=9, processed_total=10,
    failed_total=11, paused=True, timestamp=100.0, active_without_lease=12, lease_expired=13,
    overdue_scheduled=14.5, overdue_retry=0.0,
)  # fmt: skip
SERVER = ServerStatus(
    ServerInfo("h", 1, "s", 10, {"CreateEventQueue": 1, "unborn": 1}),
    (WorkerInfo("h", 1, "s", "id", "t", b"", "CreateEventQueue"),),
)
ENTRIES = (
    SchedulerEntry("late", "@every 1m", "t", next_enqueue_time=70.0),
    SchedulerEntry("on time", "@every 1m", "t", next_enqueue_time=130.0),
)
SNAPSHOT = Snapshot(100.0, (QUEUE,), (SERVER,), ENTRIES, {}, 0.01, 2)


def samples(snapshot: Snapshot, *, convoy: bool = True) -> dict[str, dict[tuple[str, ...], float]]:
    return {family.name: dict(family.samples) for family in snapshot_families(snapshot, convoy=convoy)}


def test_every_field_of_a_queue_becomes_its_metric() -> None:
    found = samples(SNAPSHOT)
    one = {name: values[("CreateEventQueue",)] for name, values in found.items() if ("CreateEventQueue",) in values}
    assert one == {
        "asynq_queue_size": 28, "asynq_queue_latency_seconds": 1.5, "asynq_tasks_processed_total": 10,
        "asynq_tasks_failed_total": 11, "asynq_queue_paused_total": 1, "asynq_queue_groups": 1,
        "asynq_tasks_active_without_lease": 12, "asynq_tasks_lease_expired": 13, "asynq_queue_servers": 1,
        "asynq_queue_concurrency": 10, "asynq_queue_busy_workers": 1,
    }  # fmt: skip
    assert found["asynq_tasks_enqueued_total"] == {
        ("CreateEventQueue", state): value
        for value, state in enumerate(
            ("pending", "active", "scheduled", "retry", "archived", "completed", "aggregating"), start=1
        )
    }
    assert found["asynq_queue_overdue_seconds"] == {
        ("CreateEventQueue", "scheduled"): 14.5,
        ("CreateEventQueue", "retry"): 0.0,
    }


def test_families_have_as_many_label_values_as_their_rows_have_keys() -> None:
    for name, found in samples(SNAPSHOT).items():
        assert all(len(values) == len(CATALOG[name].keys) for values in found), name


def test_an_unknown_field_has_no_sample_and_costs_no_other() -> None:
    broken = replace(SNAPSHOT, queues=(QUEUE._replace(latency=None, pending=None, size=None),))
    found = samples(broken)
    assert found["asynq_queue_latency_seconds"] == {}
    assert ("CreateEventQueue", "pending") not in found["asynq_tasks_enqueued_total"]
    assert len(found["asynq_tasks_enqueued_total"]) == 6
    assert found["convoy_event_queue_scheduled_total"] == {}


def test_convoy_gauges_leave_out_completed_and_archived_and_are_0_for_a_queue_that_does_not_exist() -> None:
    found = samples(SNAPSHOT)
    assert found["convoy_event_queue_scheduled_total"] == {("scheduled",): 28 - 5 - 6}
    assert found["convoy_event_workflow_queue_match_subscriptions_total"] == {("scheduled",): 0}


def test_without_convoy_its_gauges_are_absent() -> None:
    assert not [name for name in samples(SNAPSHOT, convoy=False) if name.startswith("convoy_")]


def test_servers_and_schedulers_that_cannot_be_read_are_absent_and_none_alive_is_0() -> None:
    unknown = samples(replace(SNAPSHOT, servers=None, scheduler_entries=None))
    assert not [name for name in unknown if "server" in name or "scheduler" in name or "busy" in name]
    nobody = samples(replace(SNAPSHOT, servers=(), scheduler_entries=()))
    assert nobody["asynq_servers"] == {("active",): 0}
    assert nobody["asynq_queue_servers"] == {("CreateEventQueue",): 0}
    assert nobody["asynq_scheduler_entries"] == {(): 0}
    assert nobody["asynq_scheduler_lateness_seconds"] == {(): 0}


def test_a_queue_that_is_served_but_has_no_task_yet_shows_its_servers() -> None:
    assert samples(SNAPSHOT)["asynq_queue_servers"][("unborn",)] == 1


def test_the_latest_periodic_task_gives_the_lateness() -> None:
    assert samples(SNAPSHOT)["asynq_scheduler_lateness_seconds"] == {(): 30.0}


def test_memory_and_task_types_leave_out_what_is_unknown() -> None:
    assert memory_families({"a": 5, "b": None}, 1.0) == [
        Family("asynq_queue_memory_usage_approx_bytes", [(("a",), 5.0)], 1.0, SOURCE)
    ]
    assert task_type_families({"a": {"pending": {"t": 3}, "retry": {}}}, 2.0) == [
        Family("asynq_task_types_sampled", [(("a", "pending", "t"), 3.0)], 2.0, SOURCE)
    ]


def test_busy_workers_are_absent_where_workers_were_not_read() -> None:
    unread = replace(SNAPSHOT, servers=(ServerStatus(SERVER.info, None),))
    assert samples(unread)["asynq_queue_busy_workers"] == {}
    assert samples(unread)["asynq_queue_concurrency"][("CreateEventQueue",)] == 10
