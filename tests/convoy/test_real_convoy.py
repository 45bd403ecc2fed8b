"""A real Convoy, driven and killed: each number that otel-queue shows of it is what Asynq and the rows say."""

import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.convoy.comparison import table
from tests.convoy.driver import Driver
from tests.convoy.gateway import convoy
from tests.convoy.lab import Lab
from tests.convoy.program import build_convoy, convoy_source
from tests.convoy.receiver import receiver

MOST_SHOWN: Final = 100


@pytest.fixture(scope="module")
def lab() -> Iterator[Lab]:
    source = convoy_source()
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="oq-")))
        program = build_convoy(source, directory)
        webhooks = stack.enter_context(receiver())
        gateway = stack.enter_context(convoy(program, directory))
        yield stack.enter_context(Lab(gateway, webhooks, directory))


@pytest.mark.timeout(1_500)
def test_every_number_of_a_real_convoy_is_what_asynq_and_its_rows_say(
    lab: Lab, capsys: pytest.CaptureFixture[str]
) -> None:
    try:
        _drive(lab, lab.driver)
    finally:
        unexplained = [f"{each.moment}: {difference}" for each in lab.compared for difference in each.unexplained]
        ages = sum(each.ages for each in lab.compared)
        told = f"ages that grew: {ages}; statuses of deliveries: {', '.join(sorted(lab.seen))}"
        with capsys.disabled():
            sys.stdout.write(
                "\n" + "\n".join([*lab.story, told, table(lab.compared), *unexplained[:MOST_SHOWN]]) + "\n"
            )
    assert not unexplained
    assert lab.seen == {"scheduled", "processing", "retry", "success", "failure", "discarded"}


def _drive(lab: Lab, driver: Driver) -> None:
    lab.compare("nothing yet")
    driver.prepare()
    lab.compare("projects, endpoints and a source")

    driver.every_kind(2)
    lab.compare("events of every kind on their way", is_moving=True)
    driver.rest()
    lab.compare("events of every kind delivered or failed")

    driver.pause("paused")
    driver.deactivate("inactive")
    driver.every_kind(2)
    driver.rest()
    lab.compare("one endpoint paused, one inactive")

    for number in (signal.SIGTERM, signal.SIGKILL):
        driver.single("late", 20)
        driver.every_kind(2)
        driver.wait_for_requests(15)
        driver.stop_agent(number)
        lab.compare(f"agent ended by {number.name} at work")
        driver.single("ok", 3)
        driver.ingest(2)
        lab.compare(f"accepted without an agent, after {number.name}")
        lab.convoy.agent.start()
        driver.rest()
        lab.compare(f"agent back after {number.name}")

    lab.kill_follower()
    lab.story.append(f"resent: {driver.resend(6)}")
    driver.force_resend(6)
    driver.rest()
    lab.start_follower()
    lab.compare("resent, and resent by force, while no follower lived")
    lab.receiver.healed.set()
    driver.batch_retry("broken")
    driver.rest()
    lab.compare("failures of one endpoint retried as a batch")

    driver.pause("paused")
    driver.activate("inactive")
    driver.rename("Renamed")
    driver.every_kind(1)
    driver.rest()
    lab.compare("renamed, unpaused, activated")
    lab.compare_with_snapshots("at rest")

    driver.stop_agent(signal.SIGTERM)
    driver.single("gone", 2)
    driver.fan_out(2)
    driver.delete("gone")
    lab.convoy.agent.start()
    # Convoy tries these for minutes, and archives them: there is never a row of the first two.
    driver.wait_for_retries("CreateEventQueue", 2)
    driver.every_kind(1)
    lab.compare("an endpoint deleted before its events came to it", is_moving=True)
    driver.stop_agent(signal.SIGTERM)
    lab.compare("the agent ended for good")
    lab.change_behind_the_follower()
    lab.story.append(lab.sweep())
    lab.compare("swept")
