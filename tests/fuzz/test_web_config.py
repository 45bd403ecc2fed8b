"""The web config file: whatever YAML says, it is read or every fault is told, and no hash is quoted."""

from pathlib import Path

import bcrypt
import pytest
from hypothesis import strategies as st

from otel_queue.errors import ConfigError
from otel_queue.server.auth import BasicAuth, cost_of
from otel_queue.server.web_config import read_web_config
from tests.fuzz.budget import CONFIGS, EXAMPLES, counted, fuzzed, seeded
from tests.fuzz.mutation import mutate, random_bytes
from tests.fuzz.odd import unicode_text

pytestmark = pytest.mark.timeout(900)

HASHED = bcrypt.hashpw(b"secret", bcrypt.gensalt(4)).decode()
WHOLE = [
    b"tls_server_config:\n  cert_file: a.crt\n  key_file: a.key\n  min_version: TLS12\n  cipher_suites: [X]\n"
    b"  client_auth_type: RequireAndVerifyClientCert\n  client_ca_file: ca.crt\n",
    b"http_server_config:\n  http2: true\n  headers:\n    X-Frame-Options: deny\n    X-XSS-Protection: a\n",
    b"basic_auth_users:\n  alice: " + HASHED.encode() + b"\n  bob: '" + HASHED.encode() + b"'\n",
]
ODD = [
    "!!int ''", "!!float ''", "!!bool x", "!!timestamp x", "!!binary x", "!!null x", "!!set {a, b}", "!!omap [a: 1]",
    "!!pairs [a: 1]", "!!python/object:os.system ls", "!!str 5", "0x" + "f" * 5_000, "9" * 5_000, "1:30:00", "0o7", "~",
    "2020-99-99", "'\\0'", '"\\0"', '"\\ud800"', '"\\x07"', "&a [*a]", "*nothing", "<<: 5", "<<: [1]", "=", "|",
    "{a: 1, a: 2}", "? [a]\n: 1", "[" * 2_000, "- " * 500, "&a [x, *a]", "nan", ".inf", "1e400", "TLS12", "TLS13",
]  # fmt: skip


def checked(file: Path) -> bool:
    """Whether the file could be used; anything but a ConfigError passes."""
    config, faults = None, [""]
    try:
        config = read_web_config(file)
    except ConfigError as error:
        faults = error.faults
    if config is None:
        assert faults
        assert HASHED[7:] not in "".join(faults)
        # A few lines of YAML can mean a list of billions, which no fault may write out.
        assert all(len(fault) < 10_000 + len(file.read_bytes()) for fault in faults)
        return False
    # Damage may make a cost that is allowed and takes seconds.
    auth = BasicAuth({name: each for name, each in config.basic_auth_users.items() if cost_of(each) < 10})
    assert not auth.allows("Basic Og==")
    for name, value in config.headers.items():
        f"{name}: {value}".encode("latin-1")
    return True


def test_a_damaged_file_is_read_or_refused(tmp_path: Path) -> None:
    chance = seeded("web config")
    file = tmp_path / "web.yml"
    refused = 0
    for _ in counted(CONFIGS // 4, "web config"):
        file.write_bytes(mutate(chance.choice(WHOLE), chance) if chance.random() < 0.9 else random_bytes(chance))
        refused += not checked(file)
    assert refused


PLACES = (
    "{}", "tls_server_config: {}", "tls_server_config: {{min_version: {}}}", "tls_server_config: {{cert_file: {}}}",
    "tls_server_config: {{cipher_suites: [{}]}}", "tls_server_config: {{client_auth_type: {}}}", "{}: 1",
    "http_server_config: {{headers: {{X-XSS-Protection: {}}}}}", "http_server_config: {{headers: {}}}",
    "http_server_config: {{http2: {}}}", "basic_auth_users: {}", "basic_auth_users: {{{}: '" + HASHED + "'}}",
    "basic_auth_users: {{a: {}}}", "tls_server_config: {{{}: 1}}", "a: &x {}\nbasic_auth_users: *x",
)  # fmt: skip


@fuzzed(EXAMPLES, place=st.sampled_from(PLACES), value=st.one_of(st.sampled_from(ODD), unicode_text))
def test_a_value_of_any_type_is_taken_or_its_fault_is_told(tmp_path: Path, place: str, value: str) -> None:
    file = tmp_path / "web.yml"
    file.write_text(place.format(value), encoding="utf-8")
    checked(file)


def test_a_list_that_grows_with_every_line_is_refused_in_short_words(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{level}: &a{level} [*a{level - 1}, *a{level - 1}]" for level in range(1, 60))]
    file = tmp_path / "web.yml"
    for place in ("min_version: *a59", "cipher_suites: [*a59]", "cert_file: *a59", "client_auth_type: *a59"):
        file.write_text("\n".join([*lines, f"tls_server_config: {{{place}}}"]))
        assert not checked(file)
