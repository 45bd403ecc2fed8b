"""A master, its replica, and three Sentinels that agree within about a second."""

import contextlib
import dataclasses
from collections.abc import Iterator
from pathlib import Path

import redis

from tests.servers.process import temporary_directory, wait_until
from tests.servers.redis import RedisServer, redis_server

MASTER_NAME = "queues"
QUORUM = 2
# Sentinel's periods in milliseconds, which are seconds by default; servers before 7.0 keep the defaults.
# The ping period stays: five of them are how old a replica's INFO may be, and while the master is down that is
# read only once a second.
FAST = ("info-period", "200", "publish-period", "100", "ask-period", "100")


@dataclasses.dataclass
class Sentinels:
    master: RedisServer
    replica: RedisServer
    sentinels: list[RedisServer]

    @property
    def url(self) -> str:
        hosts = ",".join(f"127.0.0.1:{sentinel.port}" for sentinel in self.sentinels)
        return f"redis-sentinel://{hosts}/0?master={MASTER_NAME}"

    def client(self) -> redis.Redis:
        """Connected to whom the first Sentinel calls the master now."""
        return redis.Redis(port=self._master_port(self.sentinels[0]))

    def failover(self) -> None:
        """Kills the master, and returns when every Sentinel names the replica, which takes writes by then."""
        self.master.kill()
        wait_until(self._replica_leads, what="the Sentinels have made the replica the master")

    def _replica_leads(self) -> bool:
        with self.replica.client() as client:
            is_master = client.info("replication")["role"] == "master"
        return is_master and all(self._master_port(each) == self.replica.port for each in self.sentinels)

    @staticmethod
    def _master_port(sentinel: RedisServer) -> int:
        with sentinel.client() as client:
            return int(client.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", MASTER_NAME)[1])


@contextlib.contextmanager
def redis_sentinel() -> Iterator[Sentinels]:
    with contextlib.ExitStack() as stack:
        directory = stack.enter_context(temporary_directory())
        master = stack.enter_context(redis_server())
        replica = stack.enter_context(redis_server(replica_of=master))
        # The third is too patient to stand for election itself: three candidates at once split the vote, and the
        # next attempt comes only after twice the failover timeout.
        sentinels = [_start_sentinel(stack, directory, master, patience) for patience in (500, 500, 10_000)]
        running = Sentinels(master, replica, sentinels)
        wait_until(lambda: all(map(_knows_all, sentinels)), what="the Sentinels know each other")
        yield running


def _start_sentinel(
    stack: contextlib.ExitStack, directory: Path, master: RedisServer, down_after_ms: int
) -> RedisServer:
    sentinel = RedisServer(directory, sentinel_lines=_sentinel_lines(master, down_after_ms))
    stack.callback(sentinel.process.stop)
    sentinel.start()
    with sentinel.client() as client, contextlib.suppress(redis.ResponseError):
        client.execute_command("SENTINEL", "DEBUG", *FAST)
    return sentinel


def _sentinel_lines(master: RedisServer, down_after_ms: int) -> list[str]:
    return [
        f"sentinel monitor {MASTER_NAME} 127.0.0.1 {master.port} {QUORUM}",
        f"sentinel down-after-milliseconds {MASTER_NAME} {down_after_ms}",
        f"sentinel failover-timeout {MASTER_NAME} 3000",
    ]


def _knows_all(sentinel: RedisServer) -> bool:
    with sentinel.client() as client:
        pairs = client.execute_command("SENTINEL", "MASTER", MASTER_NAME)
    known = pairs if isinstance(pairs, dict) else dict(zip(pairs[::2], pairs[1::2], strict=True))
    state = {_text(key): _text(value) for key, value in known.items()}
    return state["num-other-sentinels"] == "2" and state["num-slaves"] == "1"


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)
