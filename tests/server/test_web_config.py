import os
import pty
import ssl
import subprocess
import sys
from pathlib import Path

import bcrypt
import pytest
import trustme
from cryptography.hazmat.primitives import serialization

from otel_queue.errors import ConfigError
from otel_queue.server.web_config import WebConfig, read_web_config

HASHED = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
OTHER_HASH = "$2y$10$abcdefghijklmnopqrstuu"  # too short: somebody's clipboard lost the end


@pytest.fixture
def folder(tmp_path: Path, authority: trustme.CA) -> Path:
    issued = authority.issue_cert("127.0.0.1")
    issued.cert_chain_pems[0].write_to_path(tmp_path / "server.crt")
    issued.private_key_pem.write_to_path(tmp_path / "server.key")
    authority.cert_pem.write_to_path(tmp_path / "ca.crt")
    return tmp_path


def read(folder: Path, text: str) -> WebConfig:
    (folder / "web.yml").write_text(text)
    return read_web_config(folder / "web.yml")


def faults(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        read(folder, text)
    prefix = f"web config {folder / 'web.yml'}: "
    assert all(fault.startswith(prefix) for fault in caught.value.faults)
    return [fault.removeprefix(prefix) for fault in caught.value.faults]


TLS = "tls_server_config:\n  cert_file: server.crt\n  key_file: server.key\n"


@pytest.mark.parametrize("text", ["", "---\n", "{}", "tls_server_config: {}\nbasic_auth_users:\nhttp_server_config:\n"])
def test_a_file_without_settings_protects_nothing(tmp_path: Path, text: str) -> None:
    config = read(tmp_path, text)

    assert config == WebConfig()
    assert config.ssl_context() is None


def test_a_complete_file_is_read(folder: Path) -> None:
    config = read(
        folder,
        f"""
tls_server_config:
  cert_file: server.crt
  key_file: {folder}/server.key
  client_auth_type: RequireAndVerifyClientCert
  client_ca_file: ./ca.crt
  min_version: TLS12
  max_version: TLS13
  cipher_suites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256, TLS_AES_128_GCM_SHA256]
  prefer_server_cipher_suites: false
http_server_config:
  http2: true
  headers:
    X-Frame-Options: SAMEORIGIN
    Strict-Transport-Security: max-age=31536000
    Content-Security-Policy: ""
    X-XSS-Protection:
basic_auth_users:
  prometheus: {HASHED}
""",
    )

    assert config.tls is not None
    assert config.tls.cert_file == folder / "server.crt"
    assert config.tls.key_file == folder / "server.key"
    assert config.tls.client_ca_file == folder / "ca.crt"
    assert config.headers == {
        "X-Frame-Options": "SAMEORIGIN",
        "Strict-Transport-Security": "max-age=31536000",
        "Content-Security-Policy": "",
        "X-XSS-Protection": "",
    }
    assert config.basic_auth_users == {"prometheus": HASHED}
    context = config.ssl_context()
    assert context is not None
    assert context.verify_mode == ssl.CERT_REQUIRED


def test_paths_start_at_the_folder_of_the_file_not_at_the_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "web.yml").write_text(TLS)
    monkeypatch.chdir(folder.parent)

    assert read_web_config(Path(folder.name) / "web.yml").ssl_context() is not None


def test_all_faults_are_reported_together(folder: Path) -> None:
    found = faults(
        folder,
        f"""
tls_server_config:
  cert_file: missing.crt
  client_auth_type: Sometimes
  client_allowed_sans: [scraper]
  min_version: TLS10
  cipher_suites: [TLS_RSA_WITH_RC4_128_SHA]
  surprise: 1
http_server_config:
  http2: maybe
  headers:
    X-Frame-Options: perhaps
    X-Powered-By: me
    Strict-Transport-Security: "a\\r\\nSet-Cookie: b"
basic_auth_users:
  alice: plaintext
  "b:ob": {HASHED}
  12: {HASHED}
rate_limit:
  burst: 3
users: {{}}
""",
    )

    expected = [
        "rate_limit is not offered by this exporter; leave it out",
        "users is unknown; expected tls_server_config, http_server_config, basic_auth_users",
        "tls_server_config.client_allowed_sans is not offered by this exporter; use a client_ca_file",
        "tls_server_config.surprise is unknown; expected cert_file",
        "tls_server_config.key_file is missing",
        f"tls_server_config.cert_file {folder}/missing.crt cannot be read: No such file or directory",
        "tls_server_config.client_auth_type 'Sometimes' is not offered; expected NoClientCert",
        "tls_server_config.min_version 'TLS10' is not offered; expected TLS12, TLS13",
        "tls_server_config.cipher_suites: 'TLS_RSA_WITH_RC4_128_SHA' is not offered; expected TLS_ECDHE",
        "http_server_config.http2 is text; expected true or false",
        "http_server_config.headers.X-Powered-By is unknown; expected Content-Security-Policy",
        "http_server_config.headers.X-Frame-Options 'perhaps' is not allowed; expected deny or sameorigin",
        "http_server_config.headers.Strict-Transport-Security is not a line of printable ASCII text",
        "basic_auth_users: the value of alice is not a bcrypt hash; make one with: htpasswd",
        "basic_auth_users: b:ob is not a user name",
        "basic_auth_users: 12 is not a user name",
    ]
    assert len(found) == len(expected), found
    for beginning in expected:
        assert any(fault.startswith(beginning) for fault in found), (beginning, found)


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        (TLS + "  min_version: TLS13\n  max_version: TLS12\n", "min_version TLS13 is above max_version TLS12"),
        (TLS + "  max_version: TLS12\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n", "none that max_version TLS12"),
        (TLS + "  cipher_suites: TLS_AES_128_GCM_SHA256\n", "cipher_suites is text; expected a list of names"),
        (TLS + "  client_auth_type: RequireAndVerifyClientCert\n", "needs tls_server_config.client_ca_file"),
        (TLS + "  client_auth_type: VerifyClientCertIfGiven\n", "needs tls_server_config.client_ca_file"),
        (TLS + "  client_auth_type: RequireAnyClientCert\n", "use RequireAndVerifyClientCert"),
        (TLS + "  client_ca_file: ca.crt\n", "verifies no client"),
        (TLS + "  curve_preferences: [X25519]\n", "curve_preferences is not offered by this exporter"),
        ("tls_server_config:\n  cert: PEM\n  key: PEM\n", "tls_server_config.key is not offered by this exporter"),
        ("tls_server_config:\n  min_version: TLS13\n", "tls_server_config.cert_file is missing"),
        ("tls_server_config:\n  cert_file: [a]\n  key_file: server.key\n", "cert_file is a list; expected a path"),
        ("tls_server_config:\n  cert_file: .\n  key_file: server.key\n", "cannot be read: Is a directory"),
        ("tls_server_config:\n  cert_file: ca.crt\n  key_file: server.key\n", "OpenSSL refuses"),
        ("tls_server_config:\n  cert_file: web.yml\n  key_file: server.key\n", "OpenSSL refuses"),
        (TLS + "  client_ca_file: web.yml\n  client_auth_type: VerifyClientCertIfGiven\n", "OpenSSL refuses"),
        ("tls_server_config: yes\n", "tls_server_config is true or false; expected keys and values"),
        ("basic_auth_users: [alice]\n", "basic_auth_users is a list; expected names with bcrypt hashes"),
        ("- a\n", "the file is a list; expected keys and values"),
        ("basic_auth_users: 3\n", "basic_auth_users is a number"),
        ("http_server_config: {headers: {X-Content-Type-Options: sniff}}\n", "expected nosniff"),
    ],
)
def test_settings_that_cannot_work_are_faults(folder: Path, text: str, fault: str) -> None:
    assert any(fault in found for found in faults(folder, text))


READ_AT_A_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from otel_queue.errors import ConfigError
from otel_queue.server.web_config import read_web_config
try:
    read_web_config(sys.argv[1])
except ConfigError as error:
    print(error)
"""


def test_an_encrypted_key_is_a_fault_and_asks_nothing_at_the_terminal(folder: Path) -> None:
    key = serialization.load_pem_private_key((folder / "server.key").read_bytes(), None)
    encrypted = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"password"),
    )
    (folder / "server.key").write_bytes(encrypted)
    (folder / "web.yml").write_text(TLS)
    ours, theirs = pty.openpty()

    try:
        reading = subprocess.run(
            [sys.executable, "-c", READ_AT_A_TERMINAL, str(folder / "web.yml")],
            stdin=theirs,
            capture_output=True,
            start_new_session=True,
            timeout=30,
            check=True,
        )
    finally:
        os.close(ours)
        os.close(theirs)

    assert b"its unencrypted PEM key" in reading.stdout


def test_a_file_that_is_missing_is_one_fault(tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        read_web_config(tmp_path / "none.yml")

    assert caught.value.faults == [f"web config {tmp_path}/none.yml: cannot be read: No such file or directory"]


def test_yaml_that_cannot_be_read_is_a_fault_with_its_place(folder: Path) -> None:
    assert faults(folder, f"basic_auth_users:\n  alice: '{HASHED}\n") == ["is not valid YAML at line 3, column 1"]


def test_bytes_that_are_no_text_are_a_fault(folder: Path) -> None:
    (folder / "web.yml").write_bytes(b"\xff\xfe\x00\xd8")

    with pytest.raises(ConfigError, match="is not valid YAML in UTF-8"):
        read_web_config(folder / "web.yml")


@pytest.mark.parametrize("tag", ["!!python/object/apply:os.system ['true']", "!surprise x"])
def test_tags_build_no_objects(folder: Path, tag: str) -> None:
    assert faults(folder, f"basic_auth_users: {tag}\n")[0].startswith("is not valid YAML at line 1")


def test_a_key_given_twice_is_a_fault(folder: Path) -> None:
    text = f"basic_auth_users:\n  alice: {HASHED}\n  alice: {HASHED}\n"

    assert faults(folder, text) == ["line 3 repeats a key of its section"]


@pytest.mark.parametrize(
    "text",
    [
        f"basic_auth_users:\n  alice: {OTHER_HASH}\n",
        f"basic_auth_users:\n  {OTHER_HASH}: alice\n",
        f"basic_auth_users: {OTHER_HASH}\n",
        f"{OTHER_HASH}\n",
        f"{OTHER_HASH}: alice\n",
        f"tls_server_config:\n  {OTHER_HASH}: x\n",
        f"tls_server_config: {OTHER_HASH}\n",
        f"basic_auth_users: {{alice: {OTHER_HASH}\n",
        f"alice: !{OTHER_HASH} x\n",
        f"alice: *{OTHER_HASH}\n",
        f"tls_server_config:\n  key: {OTHER_HASH}\n",
    ],
)
def test_no_fault_quotes_a_hash_or_a_key(folder: Path, text: str) -> None:
    assert OTHER_HASH not in repr(faults(folder, text))


def test_the_configuration_does_not_print_its_hashes(folder: Path) -> None:
    config = read(folder, f"basic_auth_users:\n  alice: {HASHED}\n")

    assert HASHED not in repr(config)


def test_files_that_went_bad_after_reading_are_a_fault(folder: Path) -> None:
    config = read(folder, TLS)
    (folder / "server.crt").write_text("nothing")

    with pytest.raises(ConfigError, match=r"OpenSSL refuses .*server\.crt"):
        config.ssl_context()
