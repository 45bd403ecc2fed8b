from random import Random

import pytest

from otel_queue.asynq.message import SchedulerEntry, decode_scheduler_entry
from otel_queue.demo.broker import Broker
from otel_queue.demo.scheduler import Periodic, Scheduler, next_run
from tests.demo.conftest import START, RawRedis, SteppedClock

MINUTELY = Periodic("* * * * *", "Refresh", "ScheduleQueue")
NIGHTLY = Periodic("58 23 * * *", "Clean", "ScheduleQueue")


def entries(client: RawRedis) -> list[SchedulerEntry]:
    (key,) = client.zrange("asynq:schedulers", 0, -1)
    return [decode_scheduler_entry(raw) for raw in client.lrange(key, 0, -1)]


@pytest.mark.parametrize(
    ("spec", "seconds"),
    [
        ("@every 15s", 15),
        ("* * * * *", 60),
        ("30 * * * *", 30 * 60),
        ("58 23 * * *", (3 * 60 + 58) * 60),
        ("0 20 * * *", 24 * 3600),  # the start is such a moment itself, so the next is tomorrow's
    ],
)
def test_a_spec_says_when_it_is_due_next(spec: str, seconds: int) -> None:
    assert next_run(spec, START) == START + seconds


@pytest.mark.parametrize("spec", ["0 0 1 * *", "61 * * * *"])
def test_a_spec_that_is_not_understood_is_refused(spec: str) -> None:
    with pytest.raises(ValueError, match="cron spec"):
        next_run(spec, START)


def test_nothing_is_known_of_a_scheduler_before_its_first_interval_is_over(
    client: RawRedis, clock: SteppedClock
) -> None:
    scheduler = Scheduler(Broker(client, clock), Random(1), "host", (MINUTELY, NIGHTLY))
    clock.now += 9
    scheduler.step()
    assert client.keys() == []
    clock.now += 1
    scheduler.step()
    assert [entry.spec for entry in entries(client)] == [NIGHTLY.spec, MINUTELY.spec]
    assert [entry.prev_enqueue_time for entry in entries(client)] == [None, None]
    assert entries(client)[1].enqueue_options == ('Queue("ScheduleQueue")',)


def test_a_due_entry_is_enqueued_once_however_late_and_says_when_it_ran(client: RawRedis, clock: SteppedClock) -> None:
    scheduler = Scheduler(Broker(client, clock), Random(1), "host", (MINUTELY, NIGHTLY))
    clock.now += 200
    scheduler.step()
    scheduler.step()
    assert client.llen("asynq:{ScheduleQueue}:pending") == 1
    entry = entries(client)[1]
    assert (entry.prev_enqueue_time, entry.next_enqueue_time) == (START + 60, START + 240)
    assert client.zcard(f"asynq:scheduler_history:{entry.id}") == 1


def test_a_scheduler_that_shuts_down_leaves_its_tasks_only(client: RawRedis, clock: SteppedClock) -> None:
    scheduler = Scheduler(Broker(client, clock), Random(1), "host", (MINUTELY,))
    clock.now += 60
    scheduler.step()
    scheduler.shut_down()
    assert not client.keys("asynq:scheduler*")
    assert client.llen("asynq:{ScheduleQueue}:pending") == 1
