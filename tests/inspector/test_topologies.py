"""The same data is read over every kind of connection to one server."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import trustme

from otel_queue.asynq.inspector import Inspector
from otel_queue.config import RedisConfig
from otel_queue.config.secret import Secret
from otel_queue.errors import ReadError
from otel_queue.redis_client import connect
from tests.inspector.filled import assert_shows_all, fill, inspecting
from tests.inspector.test_least_permissions import LEAST, acl_line
from tests.servers.process import wait_until
from tests.servers.redis import RedisServer, redis_server, wait_until_synchronised
from tests.servers.redis_sentinel import MASTER_NAME, Sentinels, redis_sentinel


@pytest.fixture(scope="module")
def tls_server() -> Iterator[RedisServer]:
    with redis_server(tls=True) as server:
        with server.client() as client:
            fill(client)
        yield server


def test_a_server_over_tcp_is_read() -> None:
    with redis_server() as server:
        fill(server.client())
        with inspecting(server.url) as inspector:
            assert_shows_all(inspector)


def test_another_database_is_read() -> None:
    with redis_server() as server:
        url = server.url.removesuffix("/0") + "/5"
        with server.client() as client:
            client.select(5)
            fill(client)
        with inspecting(url) as inspector:
            assert_shows_all(inspector)
        with inspecting(server.url) as inspector:
            assert inspector.queues() == []


def test_a_server_behind_a_unix_socket_is_read() -> None:
    with redis_server(unix_socket=True) as server:
        fill(server.client())
        with inspecting(server.url) as inspector:
            assert_shows_all(inspector)


def test_a_server_with_a_password_is_read_with_it_in_the_url_or_beside_it() -> None:
    with redis_server(password="secret") as server:
        fill(server.client())
        bare = f"redis://127.0.0.1:{server.port}/0"
        with inspecting(server.url) as inspector:
            assert_shows_all(inspector)
        with inspecting(bare, password=Secret("secret")) as inspector:
            assert_shows_all(inspector)


def test_no_password_and_a_wrong_one_are_told_as_auth() -> None:
    with redis_server(password="secret") as server:
        bare = f"redis://127.0.0.1:{server.port}/0"
        with inspecting(bare) as inspector, pytest.raises(ReadError) as missing:
            inspector.snapshot()
        with inspecting(bare, password=Secret("wrong")) as inspector, pytest.raises(ReadError) as wrong:
            inspector.snapshot()
    assert (missing.value.reason, wrong.value.reason) == ("auth", "auth")
    assert "wrong" not in str(wrong.value).replace("WRONGPASS", "")


def test_an_acl_user_is_used_from_the_url_or_beside_it() -> None:
    with redis_server(users=["reader on >secret ~asynq:* -@all +@read +memory|usage"]) as server:
        fill(server.client())
        with inspecting(server.url_for("reader", "secret")) as inspector:
            assert_shows_all(inspector)
        with inspecting(server.url, username="reader", password=Secret("secret")) as inspector:
            assert_shows_all(inspector)


def test_tls_is_verified_against_the_given_authority(tls_server: RedisServer) -> None:
    with inspecting(tls_server.url, tls_ca_file=tls_server.ca_file) as inspector:
        assert_shows_all(inspector)


def test_session_tickets_that_arrive_after_the_handshake_are_not_taken_for_replies(
    tls_server: RedisServer,
) -> None:
    reader = connect(RedisConfig(url=tls_server.url, tls_ca_file=tls_server.ca_file))
    inspector = Inspector(reader)
    for _ in range(50):
        assert inspector.queues() == ["empty", "filled"]
        reader.close()


def test_tls_of_another_authority_is_refused_with_a_clear_reason(tls_server: RedisServer, tmp_path: Path) -> None:
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(other)
    with inspecting(tls_server.url, tls_ca_file=other) as inspector, pytest.raises(ReadError) as refused:
        inspector.snapshot()
    assert refused.value.reason == "connection"
    assert "certificate verify failed" in str(refused.value).lower()
    assert f"127.0.0.1:{tls_server.port}" in str(refused.value)


def test_tls_of_an_unknown_authority_is_read_only_when_told_to_skip_verification(tls_server: RedisServer) -> None:
    with inspecting(tls_server.url) as inspector, pytest.raises(ReadError, match=r"(?i)certificate"):
        inspector.snapshot()
    with inspecting(tls_server.url, tls_skip_verify=True) as inspector:
        assert_shows_all(inspector)


def test_a_server_that_asks_for_a_client_certificate_gets_it(tmp_path: Path) -> None:
    with redis_server(tls=True) as server:
        with server.client() as client:
            fill(client)
            client.config_set("tls-auth-clients", "yes")
        assert server.certificate_file is not None
        key, begin, certificates = server.certificate_file.read_text().partition("-----BEGIN CERTIFICATE")
        certificate_file, key_file = tmp_path / "certificate.pem", tmp_path / "key.pem"
        certificate_file.write_text(begin + certificates)
        key_file.write_text(key)
        own: dict[str, Any] = {"tls_cert_file": certificate_file, "tls_key_file": key_file}
        with inspecting(server.url, tls_ca_file=server.ca_file, **own) as inspector:
            assert_shows_all(inspector)
        with inspecting(server.url, tls_ca_file=server.ca_file) as inspector, pytest.raises(ReadError) as refused:
            inspector.snapshot()
    assert refused.value.reason == "connection"


def test_plain_text_to_a_tls_port_is_a_connection_error(tls_server: RedisServer) -> None:
    with inspecting(tls_server.url.replace("rediss", "redis")) as inspector, pytest.raises(ReadError) as refused:
        inspector.snapshot()
    assert refused.value.reason in ("connection", "protocol")


def test_a_read_only_replica_is_read() -> None:
    with redis_server() as master, redis_server(replica_of=master) as replica:
        with master.client() as client:
            fill(client)
            client.wait(1, 5_000)
        wait_until_synchronised(replica)
        with inspecting(replica.url) as inspector:
            assert_shows_all(inspector)


@pytest.fixture(scope="module")
def sentinels() -> Iterator[Sentinels]:
    with redis_sentinel() as running:
        yield running


def test_the_master_that_sentinel_names_is_read_before_and_after_a_failover(sentinels: Sentinels) -> None:
    with sentinels.client() as client:
        fill(client)
        client.wait(1, 5_000)
    with inspecting(sentinels.url, connect_timeout_seconds=1.0) as inspector:
        assert_shows_all(inspector)
        sentinels.failover()
        # The connection from before is dead: one read may find that out.
        wait_until(lambda: inspector.queues() == ["empty", "filled"], what="the new master is read")
        with sentinels.client() as client:
            client.flushall()  # its heartbeats may have expired meanwhile
            fill(client)
        assert_shows_all(inspector)


# At the Sentinels, for a user of their own.
LEAST_SENTINEL_COMMANDS = ("+sentinel|masters",)


def test_the_urls_credentials_are_for_the_sentinels_and_the_settings_for_redis(sentinels: Sentinels) -> None:
    set_watcher(sentinels, *LEAST_SENTINEL_COMMANDS)
    with sentinels.client() as client:
        client.flushall()
        fill(client)
        client.execute_command("ACL", "SETUSER", *acl_line(LEAST).split())
    url = sentinels.url.replace("://", "://watcher:seen@")
    with inspecting(url, username="least", password=Secret("secret")) as inspector:
        assert_shows_all(inspector)
    watcher: dict[str, Any] = {"sentinel_username": "watcher", "sentinel_password": Secret("seen")}
    with inspecting(sentinels.url, username="least", password=Secret("secret"), **watcher) as inspector:
        assert_shows_all(inspector)


@pytest.mark.parametrize(
    ("credentials", "reason", "words"),
    [
        ("watcher:seen", "permission", "no permissions to run the 'sentinel|masters' command"),
        ("watcher:wrong", "auth", "No master found for 'queues'; the Sentinels: auth:AuthenticationError$"),
    ],
)
def test_sentinels_that_refuse_us_are_told_with_their_reason(
    sentinels: Sentinels, credentials: str, reason: str, words: str
) -> None:
    set_watcher(sentinels)
    url = sentinels.url.replace("://", f"://{credentials}@")
    with inspecting(url) as inspector, pytest.raises(ReadError, match=words) as refused:
        inspector.snapshot()
    assert refused.value.reason == reason


def set_watcher(sentinels: Sentinels, *commands: str) -> None:
    for sentinel in sentinels.sentinels:
        with sentinel.client() as client:
            client.execute_command("ACL", "SETUSER", "watcher", "reset", "on", ">seen", "-@all", *commands)


def test_an_unknown_master_name_is_a_connection_error(sentinels: Sentinels) -> None:
    url = sentinels.url.replace(f"master={MASTER_NAME}", "master=nobody")
    with inspecting(url, connect_timeout_seconds=1.0) as inspector, pytest.raises(ReadError) as unknown:
        inspector.snapshot()
    assert unknown.value.reason == "connection"
    assert "nobody" in str(unknown.value)


def test_a_port_where_nobody_listens_is_a_connection_error_and_later_reads_recover() -> None:
    with redis_server() as server, inspecting(server.url) as inspector:
        fill(server.client())
        assert_shows_all(inspector)
        server.kill()
        with pytest.raises(ReadError) as gone:
            inspector.snapshot()
        assert gone.value.reason == "connection"
        server.start()
        fill(server.client())
        assert_shows_all(inspector)


def test_a_closed_reader_connects_again_when_it_is_used() -> None:
    with redis_server() as server:
        fill(server.client())
        reader = connect(RedisConfig(url=server.url))
        inspector = Inspector(reader)
        assert_shows_all(inspector)
        reader.close()
        assert_shows_all(inspector)
        reader.close()
