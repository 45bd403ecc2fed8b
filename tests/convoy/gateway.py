"""A whole Convoy: Redis, PostgreSQL, server and agent on loopback, and its API in a few verbs."""

import contextlib
import json
import subprocess
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.servers.postgres import PostgresServer, postgres_server
from tests.servers.process import ServerProcess, free_port
from tests.servers.redis import RedisServer, redis_server

API_VERSION = "2025-11-24"
Json = dict[str, Any]


class RefusedError(Exception):
    """Convoy's API answered with an error."""


class Convoy:
    """Migrated and bootstrapped; `server` and `agent` are running. Unlicensed, as anyone gets it."""

    def __init__(self, program: Path, directory: Path, redis: RedisServer, postgres: PostgresServer) -> None:
        self.redis = redis
        self.postgres = postgres
        self.port = free_port()
        self.agent_port = free_port()
        self._environment = {
            "HOME": str(directory),
            "PATH": "/usr/bin:/bin",
            "PORT": str(self.port),
            "AGENT_PORT": str(self.agent_port),
            "CONVOY_HOST": f"127.0.0.1:{self.port}",
            "CONVOY_API_VERSION": API_VERSION,
            "CONVOY_DB_DSN": f"{postgres.dsn()}?sslmode=disable",
            "CONVOY_DB_MAX_OPEN_CONN": "12",
            "CONVOY_REDIS_SCHEME": "redis",
            "CONVOY_REDIS_HOST": "127.0.0.1",
            "CONVOY_REDIS_PORT": str(redis.port),
            "CONVOY_QUEUE_PROVIDER": "redis",
            "CONVOY_CONSUMER_POOL_SIZE": "10",
            "CONVOY_ANALYTICS_ENABLED": "false",
            "CONVOY_METRICS_ENABLED": "true",
            "CONVOY_METRICS_BACKEND": "prometheus",
            "CONVOY_DISPATCHER_SKIP_PING_VALIDATION": "true",
            "CONVOY_DISPATCHER_ALLOW_LIST": "0.0.0.0/0",
            "CONVOY_INSTANCE_INGEST_RATE": "10000",
            "CONVOY_API_RATE_LIMIT": "10000",
            "CONVOY_JWT_SECRET": "a-secret-of-a-test",
            "CONVOY_JWT_REFRESH_SECRET": "another-secret-of-a-test",
        }
        self._program = program
        self._directory = directory
        self.server = self._process("server", self.port)
        self.agent = self._process("agent", self.agent_port)
        self._key = ""
        self.organisation = ""

    def _process(self, name: str, port: int) -> ServerProcess:
        return ServerProcess(
            f"convoy-{name}",
            [str(self._program), name],
            is_ready=lambda: _answers(f"http://127.0.0.1:{port}/"),
            directory=self._directory,
            environment=self._environment,
        )

    def run(self, *arguments: str) -> str:
        """What a command of Convoy's writes on stdout."""
        done = subprocess.run(
            [str(self._program), *arguments],
            cwd=self._directory,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, f"convoy {' '.join(arguments)}:\n{done.stdout}\n{done.stderr[-4_000:]}"
        return done.stdout

    def begin(self) -> None:
        self.run("migrate", "up")
        said = self.run(
            "bootstrap", "--with-api-key", "--api-key-name", "test", "--email", "a@example.com", "--format", "json"
        )
        account = json.loads(said[said.index("{") : said.rindex("}") + 1])
        self._key = account["api_key"]
        self.organisation = account["organisation_id"]
        self.server.start()
        self.agent.start()

    def call(self, method: str, path: str, body: Json | None = None) -> Any:
        """The `data` of an answer of the API; RefusedError with its text."""
        return self._request(method, f"/api/v1{path}", body)["data"]

    def ingest(self, mask: str, body: Json) -> None:
        """As a provider that calls the URL of a source."""
        self._request("POST", f"/ingest/{mask}", body)

    def metrics_status(self, port: int) -> int:
        """What Convoy's own /metrics answers: 405 without a licence."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as response:
                return int(response.status)
        except urllib.error.HTTPError as error:
            return error.code

    def _request(self, method: str, path: str, body: Json | None) -> Json:
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}{path}",
            method=method,
            data=None if body is None else json.dumps(body).encode(),
            headers={
                "Authorization": f"Bearer {self._key}",
                "Content-Type": "application/json",
                "X-Convoy-Version": API_VERSION,
            },
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                text = response.read()
        except urllib.error.HTTPError as error:
            raise RefusedError(f"{method} {path}: {error.code} {error.read().decode()[:500]}") from error
        answer: Json = json.loads(text) if text.startswith(b"{") else {"data": None}
        return answer


def _answers(url: str) -> bool:
    with contextlib.suppress(urllib.error.HTTPError), urllib.request.urlopen(url, timeout=2):
        pass
    return True


@contextlib.contextmanager
def convoy(program: Path, directory: Path) -> Iterator[Convoy]:
    """One installation of its own, which ends with the context."""
    settings = ("max_connections=80", "autovacuum=on")
    with redis_server() as redis, postgres_server(settings=settings) as postgres:
        gateway = Convoy(program, directory, redis, postgres)
        try:
            gateway.begin()
            yield gateway
        finally:
            gateway.agent.kill()
            gateway.server.kill()
