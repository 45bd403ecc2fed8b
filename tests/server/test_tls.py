import http.client
import logging
import os
import socket
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from otel_queue.server.tls import TlsConfig
from tests.server.client import fetch
from tests.server.conftest import Serve
from tests.server.fake_exporter import BODY, FakeExporter

MakeConfig = Callable[..., TlsConfig]


def write_certificate(folder: Path, authority: trustme.CA) -> bytes:
    """A new certificate and key for 127.0.0.1 in `folder`; returns the certificate in DER."""
    issued = authority.issue_cert("127.0.0.1", "localhost")
    for name, blob in (("server.crt", issued.cert_chain_pems[0]), ("server.key", issued.private_key_pem)):
        fresh = folder / f".{name}"
        blob.write_to_path(fresh)
        fresh.replace(folder / name)
    return ssl.PEM_cert_to_DER_cert(issued.cert_chain_pems[0].bytes().decode())


@pytest.fixture
def make_config(tmp_path: Path, authority: trustme.CA) -> MakeConfig:
    write_certificate(tmp_path, authority)
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")

    def make(**changes: object) -> TlsConfig:
        files = {"cert_file": tmp_path / "server.crt", "key_file": tmp_path / "server.key"}
        return TlsConfig(**{**files, **changes})  # type: ignore[arg-type]

    return make


@pytest.fixture
def client(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


def with_certificate(client: ssl.SSLContext, issuer: trustme.CA) -> ssl.SSLContext:
    issuer.issue_cert("scraper@example.org").configure_cert(client)
    return client


def certificate_served(port: int, client: ssl.SSLContext, server_name: str | None = "127.0.0.1") -> bytes | None:
    if server_name is None:
        client.check_hostname = False
    with (
        socket.create_connection(("127.0.0.1", port), timeout=30) as plain,
        client.wrap_socket(plain, server_hostname=server_name) as connection,
    ):
        return connection.getpeercert(binary_form=True)


def assert_refused(port: int, client: ssl.SSLContext, exporter: FakeExporter) -> None:
    """With TLS 1.3 a client learns that its certificate was refused when it reads, not when it connects."""
    with pytest.raises((ssl.SSLError, ConnectionError)):
        fetch(port, tls=client)
    assert exporter.asked == []


def test_metrics_are_served_over_tls(serve: Serve, make_config: MakeConfig, client: ssl.SSLContext) -> None:
    listener = serve(ssl_context=make_config().context())

    assert fetch(listener.port, tls=client).body == BODY
    assert listener.url == f"https://127.0.0.1:{listener.port}/"


def test_a_client_that_does_not_trust_the_authority_gets_nothing(
    serve: Serve, exporter: FakeExporter, make_config: MakeConfig
) -> None:
    assert_refused(serve(ssl_context=make_config().context()).port, ssl.create_default_context(), exporter)


def test_plain_http_to_a_tls_port_gets_nothing(serve: Serve, exporter: FakeExporter, make_config: MakeConfig) -> None:
    port = serve(ssl_context=make_config().context()).port

    with pytest.raises((OSError, http.client.HTTPException)):
        fetch(port)

    assert exporter.asked == []


@pytest.mark.parametrize(
    ("allowed", "offered", "spoken"),
    [
        ({}, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), "TLSv1.2"),
        ({}, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), "TLSv1.3"),
        ({"max_version": "TLS12"}, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3), "TLSv1.2"),
        ({"min_version": "TLS13"}, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), None),
        ({"cipher_suites": ("TLS_AES_128_GCM_SHA256",)}, (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_2), None),
    ],
)
def test_the_tls_version_is_kept_inside_the_configured_range(
    serve: Serve,
    make_config: MakeConfig,
    client: ssl.SSLContext,
    allowed: dict[str, object],
    offered: tuple[ssl.TLSVersion, ssl.TLSVersion],
    spoken: str | None,
) -> None:
    port = serve(ssl_context=make_config(**allowed).context()).port
    client.minimum_version, client.maximum_version = offered

    with socket.create_connection(("127.0.0.1", port), timeout=30) as plain:
        if spoken is None:
            with pytest.raises((ssl.SSLError, ConnectionError)):
                client.wrap_socket(plain, server_hostname="127.0.0.1")
        else:
            with client.wrap_socket(plain, server_hostname="127.0.0.1") as connection:
                assert connection.version() == spoken


def test_only_the_configured_cipher_suites_are_spoken(
    serve: Serve, make_config: MakeConfig, client: ssl.SSLContext
) -> None:
    suites = ("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384", "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")
    context = make_config(cipher_suites=suites, prefer_server_cipher_suites=False).context()

    older = {cipher["name"] for cipher in context.get_ciphers() if cipher["protocol"] != "TLSv1.3"}

    assert older == {"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"}
    assert not context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    client.maximum_version = ssl.TLSVersion.TLSv1_2
    assert fetch(serve(ssl_context=context).port, tls=client).status == 200


@pytest.mark.parametrize(
    ("client_auth_type", "without", "trusted", "untrusted"),
    [
        ("NoClientCert", True, True, True),
        ("RequestClientCert", True, True, True),
        ("VerifyClientCertIfGiven", True, True, False),
        ("RequireAndVerifyClientCert", False, True, False),
    ],
)
@pytest.mark.parametrize("newest", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_who_gets_in_follows_from_the_client_auth_type(
    serve: Serve,
    exporter: FakeExporter,
    make_config: MakeConfig,
    authority: trustme.CA,
    tmp_path: Path,
    client_auth_type: str,
    without: bool,
    trusted: bool,
    untrusted: bool,
    newest: ssl.TLSVersion,
) -> None:
    ca_file = tmp_path / "ca.crt" if "Verify" in client_auth_type else None
    config = make_config(client_auth_type=client_auth_type, client_ca_file=ca_file)
    port = serve(ssl_context=config.context()).port

    for issuer, let_in in ((None, without), (trustme.CA(), untrusted), (authority, trusted)):
        client = ssl.create_default_context()
        client.maximum_version = newest
        authority.configure_trust(client)
        if issuer is not None:
            with_certificate(client, issuer)
        exporter.asked.clear()
        if let_in:
            assert fetch(port, tls=client).body == BODY
        else:
            assert_refused(port, client, exporter)


@pytest.mark.parametrize("server_name", ["127.0.0.1", "localhost", None])
def test_a_renewed_certificate_is_served_without_a_restart(
    serve: Serve,
    make_config: MakeConfig,
    authority: trustme.CA,
    client: ssl.SSLContext,
    tmp_path: Path,
    server_name: str | None,
) -> None:
    port = serve(ssl_context=make_config().context()).port
    before = certificate_served(port, client, server_name)

    renewed = [write_certificate(tmp_path, authority) for _ in range(2)][-1]

    assert before != renewed
    assert certificate_served(port, client, server_name) == renewed
    assert certificate_served(port, client, server_name) == renewed


def test_a_renewal_keeps_asking_for_client_certificates_and_trusts_the_new_authority(
    serve: Serve,
    exporter: FakeExporter,
    make_config: MakeConfig,
    authority: trustme.CA,
    client: ssl.SSLContext,
    tmp_path: Path,
) -> None:
    config = make_config(client_auth_type="RequireAndVerifyClientCert", client_ca_file=tmp_path / "ca.crt")
    port = serve(ssl_context=config.context()).port
    successor = trustme.CA()

    write_certificate(tmp_path, authority)
    successor.cert_pem.write_to_path(tmp_path / "ca.new")
    (tmp_path / "ca.new").replace(tmp_path / "ca.crt")

    assert_refused(port, client, exporter)
    assert fetch(port, tls=with_certificate(client, successor)).body == BODY


def test_a_broken_renewal_leaves_the_old_certificate_in_use_and_is_logged_once(
    serve: Serve,
    make_config: MakeConfig,
    authority: trustme.CA,
    client: ssl.SSLContext,
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = serve(ssl_context=make_config().context()).port
    before = certificate_served(port, client)

    with caplog.at_level(logging.WARNING, logger="otel_queue"):
        (tmp_path / "server.crt").write_text("half a certif")
        served_meanwhile = [certificate_served(port, client) for _ in range(3)]
    renewed = write_certificate(tmp_path, authority)

    assert served_meanwhile == [before] * 3
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert certificate_served(port, client) == renewed


def test_certificates_that_vanish_for_a_while_leave_the_old_ones_in_use(
    serve: Serve, make_config: MakeConfig, client: ssl.SSLContext, tmp_path: Path
) -> None:
    port = serve(ssl_context=make_config().context()).port
    before = certificate_served(port, client)

    os.unlink(tmp_path / "server.key")

    assert certificate_served(port, client) == before
