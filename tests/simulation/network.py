"""The way to the virtual servers, and what becomes of what is sent on it."""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Final, Protocol, TypeVar

from otel_queue.errors import ReadError
from otel_queue.redis_client import Answers, Reply, Request
from tests.simulation.facts import Fact, facts_of_call
from tests.simulation.reference import Reference
from tests.simulation.schedule import START_US, Step
from tests.simulation.virtual_redis import Scripts, Server, VirtualRedis, Write, commands_of, project_of

_T = TypeVar("_T")
# A read that asks more often than this does not end.
_MOST_EXCHANGES: Final = 200


class BrokenError(AssertionError):
    """An invariant does not hold."""


@dataclass
class Acting:
    """A step under way. It is alone if nothing else happened meanwhile, and nothing went wrong on its way to Redis."""

    step: Step
    chance: random.Random
    exchanges: int = 0
    is_alone: bool = True


class Actors(Protocol):
    """Whoever plays the steps."""

    def acting(self) -> Acting:
        """The step under way."""
        ...

    def do_others(self, actor: str, steps: int) -> bool:
        """Lets so many of the next steps happen now, if they are not `actor`'s; whether there were any."""
        ...


class Network:
    """The servers, their references, the clock, and what is wrong. The first server has what is of the whole ledger."""

    def __init__(
        self, servers: int, homes: dict[str, int], redis_port: int, scripts: Scripts, trace: Callable[[bytes], None]
    ) -> None:
        self.now_us = START_US
        self.references = [Reference() for _ in range(servers)]
        self.told: set[Fact] = set()
        self.happened: Counter[str] = Counter()
        self.faults: dict[int, str] = {}
        self.fault_changes = 0
        self.damaged: set[str] = set()
        self.own_error: Exception | None = None
        self._redis = VirtualRedis(redis_port, servers, scripts, trace, self._written)
        self._homes = homes
        self._failing: set[int] = set()

    @property
    def servers(self) -> list[Server]:
        return self._redis.servers

    def close(self) -> None:
        self._redis.close()

    def server_of(self, key: bytes) -> Server:
        return self.home(project_of(key))

    def home(self, project: str) -> Server:
        """The server of a project."""
        return self.servers[self._homes.get(project, 0)]

    def look(self, server: Server, *words: bytes) -> Reply:
        """The reply to a command of the test's own, which leaves no trace and is no write that may be lost."""
        return self._redis.look(server, [words], self.now_us)[0]

    def has_contract(self) -> bool:
        return bool(self.look(self.servers[0], b"EXISTS", b"oq:contract"))

    def set_fault(self, number: int, fault: str | None) -> None:
        """`dead` refuses connections, `hole` swallows what it is sent; None for neither."""
        if self.faults.get(number) != fault:
            self.fault_changes += 1
        self.faults.pop(number, None)
        if fault is not None:
            self.faults[number] = fault

    def lose_tail(self, number: int, writes: int) -> None:
        """The server, or the one that took over from it, has lost its latest writes."""
        server = self.servers[number]
        self.damaged -= {each for each, home in self._homes.items() if home == number}
        self._redis.lose_tail(server, writes)
        self.references[number] = Reference()
        for write in server.writes:
            self._refer(server, write)

    def _written(self, server: Server, write: Write) -> None:
        try:
            self._refer(server, write)
            self.told.update(facts_of_call(write.script, write.project, write.arguments))
        except Exception as error:  # a writer would take it for a fault of Redis
            self.own_error = self.own_error or error
            raise

    def _refer(self, server: Server, write: Write) -> None:
        if write.script:
            self.references[server.number].call(write.script, write.project, write.arguments, write.now_us, write.reply)

    def exchange(self, acting: Acting, fate: str, requests: Sequence[Request], deadline: float) -> Answers:
        """As a link's: each server gets its part in its turn, those that failed the last time after the others."""
        by_server: dict[int, list[int]] = {}
        for index, item in enumerate(requests):
            by_server.setdefault(self.server_of(item.key).number, []).append(index)
        order = acting.chance.sample(sorted(by_server), len(by_server))
        order.sort(key=self._failing.__contains__)
        answers: list[list[Reply] | ReadError] = [ReadError("cluster_down", "")] * len(requests)
        for number in order:
            indexes = by_server[number]
            until = deadline if len(by_server) == 1 else (self.now_us / 1e6 + deadline) / 2
            parts = self._converse(number, [requests[index] for index in indexes], until, fate, acting.chance)
            error = next((part for part in parts if isinstance(part, ReadError)), None)
            if len(self.servers) == 1:
                # One server's link hands out what it has before it raises; a cluster's has all or nothing of a node.
                yield from [part for part in parts if not isinstance(part, ReadError)]
                if error is not None:
                    raise error
                return
            self._failing.discard(number)
            if error is not None:
                self._failing.add(number)
            for index, part in zip(indexes, parts, strict=True):
                answers[index] = error or part
        failures = [answer for answer in answers if isinstance(answer, ReadError)]
        if failures and len(failures) == len(answers):
            raise failures[0]
        yield from answers

    def _converse(
        self, number: int, requests: Sequence[Request], deadline: float, fate: str, chance: random.Random
    ) -> list[list[Reply] | ReadError]:
        """The replies of one server to each request, up to a ReadError where they end."""
        server, fault = self.servers[number], self.faults.get(number)
        lost = ReadError("timeout", f"{server.name} does not answer")
        if fault == "dead":
            return [ReadError("connection", f"{server.name} refuses connections")] * len(requests)
        if fault == "hole" or fate == "lost":
            self.now_us = max(self.now_us, int(deadline * 1e6))
            return [lost] * len(requests)
        self.now_us += chance.randint(50, 900)
        if self.now_us / 1e6 > deadline:
            return [lost] * len(requests)
        executed = chance.randint(0, len(requests)) if fate == "cut" else len(requests)
        commands = [commands_of(item.packed) for item in requests[:executed]]
        replies = iter(self._redis.execute(server, [words for each in commands for words in each], self.now_us))
        parts: list[list[Reply] | ReadError] = [list(islice(replies, len(each))) for each in commands]
        if fate == "unanswered":
            self.now_us = max(self.now_us, int(deadline * 1e6))
            return [lost] * len(requests)
        if fate == "cut":
            answered = chance.randint(0, executed)
            gone = ReadError("connection", f"{server.name} ended the connection")
            return [*parts[:answered], *[gone] * (len(requests) - answered)]
        return parts


class Link:
    """One actor's link."""

    def __init__(self, network: Network, actors: Actors, actor: str) -> None:
        self._network = network
        self._actors = actors
        self._actor = actor

    def exchange(self, requests: Sequence[Request], deadline: float) -> Answers:
        """As RedisLink; before it, other steps of the schedule may happen."""
        acting = self._actors.acting()
        number = acting.exchanges
        acting.exchanges += 1
        if number > _MOST_EXCHANGES:
            raise BrokenError(f"{self._actor} does not come to an end")
        step = acting.step
        if self._actors.do_others(self._actor, _at(step.meanwhile, number, 0)):
            acting.is_alone = False
        fate = _at(step.fates, number, "")
        if fate:
            acting.is_alone = False
            self._network.happened[f"exchange {fate}"] += 1
        yield from self._network.exchange(acting, fate, requests, deadline)

    def place(self, key: bytes, /) -> str:
        return self._network.server_of(key).name

    def close(self) -> None:
        return


def _at(values: Sequence[_T], number: int, default: _T) -> _T:
    return values[number] if number < len(values) else default
