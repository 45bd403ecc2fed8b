import asyncio
import threading

import pytest

from otel_queue.server.turnstile import ClientGone, Turnstile, TurnstileFull


async def never() -> None:
    await asyncio.Event().wait()


async def at_once() -> None:
    return


def test_the_result_and_the_error_of_the_work_come_back() -> None:
    turnstile = Turnstile("test", at_once=1, waiting=1)

    assert asyncio.run(turnstile.run(lambda: 42, never)) == 42
    with pytest.raises(ZeroDivisionError):
        asyncio.run(turnstile.run(lambda: 1 // 0, never))

    turnstile.close()


def test_work_for_a_client_that_left_never_begins_and_frees_its_place() -> None:
    turnstile = Turnstile("test", at_once=1, waiting=1)
    gate = threading.Event()
    begun: list[str] = []

    async def scenario() -> None:
        first = asyncio.create_task(turnstile.run(gate.wait, never))
        await asyncio.sleep(0)
        with pytest.raises(ClientGone):
            await turnstile.run(lambda: begun.append("left"), at_once)
        second = asyncio.create_task(turnstile.run(lambda: begun.append("stayed"), never))
        await asyncio.sleep(0)
        with pytest.raises(TurnstileFull):
            await turnstile.run(lambda: begun.append("too many"), never)
        gate.set()
        await asyncio.gather(first, second)

    asyncio.run(scenario())
    turnstile.close()

    assert begun == ["stayed"]


def test_a_turnstile_that_turned_somebody_away_serves_the_next() -> None:
    turnstile = Turnstile("test", at_once=1, waiting=0)
    gate = threading.Event()

    async def scenario() -> int:
        first = asyncio.create_task(turnstile.run(gate.wait, never))
        await asyncio.sleep(0)
        with pytest.raises(TurnstileFull):
            await turnstile.run(lambda: 0, never)
        gate.set()
        await first
        return await turnstile.run(lambda: 7, never)

    assert asyncio.run(scenario()) == 7
    turnstile.close()
