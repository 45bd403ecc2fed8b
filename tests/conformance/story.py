"""A random life of some queues, told by the real client, inspector and servers; the same for the same seed."""

import random
import time
from collections.abc import Callable
from typing import Any, Final, TypeVar

from tests.asynq_peer import AsynqError, AsynqPeer
from tests.conformance.lab import Lab
from tests.servers.process import wait_until

T = TypeVar("T")

QUEUES: Final = ("default", "low", "q:1", "a}b", "Grün")
GROUPS: Final = ("G", "H:x", "g")
BEHAVIOURS: Final = ("ok", "ok", "result", "fail", "skip_retry", "revoke", "soft", "block")
LEASE_SECONDS: Final = 30


class Story:
    """Draws operations and carries them out. What asynq refuses is part of the story."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self.told: list[str] = []
        self._lab = lab
        self._random = random.Random(seed)
        self._ids: list[tuple[str, str]] = []
        self._server: AsynqPeer | None = None
        self._operations: dict[Callable[[], None], int] = {
            self._enqueue: 120,
            self._change_task: 20,
            self._change_all: 6,
            self._pause_or_unpause: 6,
            self._age_pending: 6,
            self._work: 6,
            self._end_server: 4,
            self._let_leases_expire: 3,
            self._evict: 1,
            self._delete_queue: 1,
            self._register: 2,
        }

    def go_on(self, operations: int) -> None:
        """Carries out the next operations."""
        for operation in self._random.choices(list(self._operations), list(self._operations.values()), k=operations):
            operation()

    def _pick(self, items: tuple[T, ...] | list[T]) -> T:
        return self._random.choice(items)

    def _chance(self, probability: float) -> bool:
        return self._random.random() < probability

    def _call(self, verb: str, **args: Any) -> Any:
        try:
            result = self._lab.go.call(verb, **args)
        except AsynqError as refusal:
            self.told.append(f"{verb} {args}: {refusal}")
            return None
        self.told.append(f"{verb} {args}")
        return result

    def _enqueue(self) -> None:
        options: dict[str, Any] = {"queue": self._pick(QUEUES), "type": self._pick(BEHAVIOURS)}
        options["payload"] = self._random.randbytes(self._random.choice((0, 3, 40, 700)))
        options["task_id"] = f"t{self._random.randrange(400)}"
        if self._chance(0.2):
            options["process_in"] = self._pick((0.2, 60.0, 3600.0))
        if self._chance(0.2):
            options["group"] = self._pick(GROUPS)
        if self._chance(0.2):
            options |= {"unique": 60, "payload": self._pick((b"one", b"other"))}
        if self._chance(0.4):
            options["retention"] = self._pick((1, 3600))
        if self._chance(0.3):
            options["max_retry"] = self._pick((0, 1))
        if self._chance(0.1):
            options["deadline"] = time.time() + self._pick((-10.0, 3600.0))
        if self._chance(0.1):
            options["headers"] = {"oq-project": "p1", "empty": ""}
        task = self._call("enqueue", **options)
        if task is not None:
            self._ids.append((task["queue"], task["id"]))

    def _change_task(self) -> None:
        if self._ids:
            queue, task_id = self._pick(self._ids)
            self._call(self._pick(("run_task", "archive_task", "delete_task")), queue=queue, id=task_id)

    def _change_all(self) -> None:
        verb, states = self._pick(
            (
                ("run_all", ("scheduled", "retry", "archived", "aggregating")),
                ("archive_all", ("pending", "scheduled", "retry", "aggregating")),
                ("delete_all", ("pending", "scheduled", "retry", "archived", "completed", "aggregating")),
            )
        )
        state = self._pick(states)
        group = {"group": self._pick(GROUPS)} if state == "aggregating" else {}
        self._call(verb, queue=self._pick(QUEUES), state=state, **group)

    def _pause_or_unpause(self) -> None:
        self._call(self._pick(("pause_queue", "unpause_queue", "unpause_queue")), queue=self._pick(QUEUES))

    def _age_pending(self) -> None:
        """Time that passed, or a producer whose clock is ahead."""
        queue, seconds = self._pick(QUEUES), self._random.uniform(-20, 300)
        pending = self._lab.ids(f"asynq:{{{queue}}}:pending")
        for task_id in pending[-2:]:
            if self._lab.redis.hexists(f"asynq:{{{queue}}}:t:{task_id}", "pending_since"):
                self.told.append(f"pending_since of {task_id} in {queue}: {seconds:.3f} s ago")
                self._lab.age_pending(queue, task_id, seconds)

    def _work(self) -> None:
        """A server takes what it can until nothing moves any more, and stays."""
        self._end_server()
        queues = {queue: self._random.randint(1, 3) for queue in self._random.sample(QUEUES, 3)}
        options: dict[str, Any] = {
            "queues": queues,
            "concurrency": self._random.randint(1, 6),
            "retry_delay": self._pick((0.3, 3600.0)),
            "soft_failures": self._chance(0.5),
        }
        if self._chance(0.5):
            options |= {
                "aggregator": "join",
                "aggregated_type": self._pick(BEHAVIOURS),
                "group_grace_period": 1,
                "group_max_size": self._random.randint(0, 3),
            }
        self.told.append(f"a server starts: {options}")
        self._server = self._lab.start_server(**options)
        last: list[Any] = []

        def nothing_moves() -> bool:
            last.append(
                [
                    (
                        self._lab.redis.llen(f"asynq:{{{q}}}:pending"),
                        self._lab.redis.get(f"asynq:{{{q}}}:processed"),
                    )
                    for q in QUEUES
                ]
            )
            return len(last) >= 4 and last[-1] == last[-2] == last[-3] == last[-4]

        wait_until(nothing_moves, what="the server has done what it can")

    def _end_server(self) -> None:
        if self._server is None:
            return
        how = self._pick(("kill", "stop", "stop", "finish"))
        self.told.append(f"the server's end: {how}")
        if how == "kill":
            self._server.kill()
        else:
            if how == "finish":
                self._server.call("release")
            self._server.call("stop_server")
        self._server = None

    def _let_leases_expire(self) -> None:
        """As if a killed server's leases ran out; a live server's are left alone."""
        if self._server is not None:
            return
        queue = self._pick(QUEUES)
        ago = self._pick((5, LEASE_SECONDS + 1))
        leases = self._lab.ids(f"asynq:{{{queue}}}:lease")
        if leases:
            self.told.append(f"leases of {queue} ran out {ago} s ago: {leases}")
            expired_at = int(time.time()) - ago
            self._lab.redis.zadd(f"asynq:{{{queue}}}:lease", dict.fromkeys(leases, expired_at))

    def _evict(self) -> None:
        if self._ids:
            queue, task_id = self._pick(self._ids)
            self.told.append(f"Redis evicts task {task_id} of {queue}")
            self._lab.redis.delete(f"asynq:{{{queue}}}:t:{task_id}")

    def _delete_queue(self) -> None:
        self._call("delete_queue", queue=self._pick(QUEUES), force=self._chance(0.7))

    def _register(self) -> None:
        """A producer without a memory of its queues, which would list them again."""
        queue = self._pick(QUEUES)
        self.told.append(f"{queue} is listed")
        self._lab.redis.sadd("asynq:queues", queue)
