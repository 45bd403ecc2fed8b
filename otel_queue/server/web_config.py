"""The web config file of Prometheus exporters: TLS, response headers and basic auth."""

import re
import ssl
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from otel_queue.errors import ConfigError
from otel_queue.server.auth import MOST_COST, cost_of, is_bcrypt_hash
from otel_queue.server.tls import CIPHER_SUITES, CLIENT_AUTH_TYPES, TLS13_SUITES, VERSIONS, TlsConfig

_CA_TYPES = ("VerifyClientCertIfGiven", "RequireAndVerifyClientCert")
# Keys that other exporters know: ignoring one could leave a server open that its file says is closed.
_NOT_OFFERED = {
    "": {"rate_limit": "leave it out, or limit in a proxy"},
    "tls_server_config": {
        "cert": "use cert_file",
        "key": "use key_file",
        "client_ca": "use client_ca_file",
        "client_allowed_sans": "use a client_ca_file that signs the allowed clients only",
        "curve_preferences": "leave it out, OpenSSL chooses",
    },
    "http_server_config": {},
    "http_server_config.headers": {},
}
_HEADER_VALUES: dict[str, tuple[str, ...]] = {
    "Content-Security-Policy": (),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-Content-Type-Options": ("nosniff",),
    "X-XSS-Protection": (),
    "Strict-Transport-Security": (),
}
# Python refuses to write numbers of some thousand digits.
_LONGEST_NUMBER = 10**18
_HEADER_TEXT = re.compile(r"[\x20-\x7e]*")


@dataclass(frozen=True, slots=True)
class WebConfig:
    """How the HTTP side is protected; without arguments: not at all.

    `headers` replace the app's own of the same name, an empty value takes one away. `basic_auth_users` maps a
    name to a bcrypt hash.
    """

    tls: TlsConfig | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    basic_auth_users: Mapping[str, str] = field(default_factory=dict, repr=False)

    def ssl_context(self) -> ssl.SSLContext | None:
        """A context for the listener, None for plain HTTP. Raises ConfigError when the files went bad."""
        if self.tls is None:
            return None
        try:
            return self.tls.context()
        except OSError as error:
            raise ConfigError([_unusable(self.tls, error)]) from error


def read_web_config(path: Path | str) -> WebConfig:
    """The settings in the YAML file at `path`; its relative paths start at the file's folder.

    Raises ConfigError with every fault of the file. No fault quotes a hash or a key.
    """
    path = Path(path)
    faults: list[str] = []
    reading = _Reading(path.parent, faults)
    config = reading.web_config(_parse(path, faults))
    if faults:
        raise ConfigError([f"web config {path}: {fault}" for fault in faults])
    return config


class _Loader(yaml.SafeLoader):
    """Collects keys that are given twice, of which YAML's reader would silently keep the last."""

    def __init__(self, stream: bytes) -> None:
        super().__init__(stream)
        self.repeated: list[str] = []

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    self.repeated.append(f"line {key.start_mark.line + 1} repeats a key of its section")
                seen.add(key.value)
        return super().construct_mapping(node, deep)


def _parse(path: Path, faults: list[str]) -> object:
    """The file's content as Python values. The parser's own messages quote the file: they stay here."""
    try:
        content = path.read_bytes()
    except (OSError, ValueError) as error:
        faults.append(f"cannot be read: {getattr(error, 'strerror', None) or 'not a path'}")
        return None
    try:
        loader = _Loader(content)
        try:
            document: object = loader.get_single_data()
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f" at line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        faults.append(f"is not valid YAML{where}")
        return None
    # Besides its own errors the parser lets through what its types raise: `!!int ""`, `!!bool x`, `!!timestamp x`.
    except (yaml.YAMLError, ValueError, LookupError, AttributeError, TypeError, RecursionError):
        faults.append("is not valid YAML in UTF-8")
        return None
    faults.extend(loader.repeated)
    return document


class _Reading:
    """One pass over the parsed file, which collects faults and goes on."""

    def __init__(self, folder: Path, faults: list[str]) -> None:
        self._folder = folder
        self._faults = faults

    def web_config(self, document: object) -> WebConfig:
        known = ("tls_server_config", "http_server_config", "basic_auth_users")
        top = self._section("", document, known)
        return WebConfig(
            tls=self._tls(top.get("tls_server_config")),
            headers=self._headers(top.get("http_server_config")),
            basic_auth_users=self._users(top.get("basic_auth_users")),
        )

    def _tls(self, value: object) -> TlsConfig | None:
        name = "tls_server_config"
        known = tuple(TlsConfig.__dataclass_fields__)
        section = self._section(name, value, known)
        if not section:
            return None
        before = len(self._faults)
        for required in ("cert_file", "key_file"):
            if not section.get(required):
                self._fault(f"{name}.{required} is missing; TLS needs a certificate and its key")
        cert_file, key_file, client_ca_file = (
            self._file(f"{name}.{key}", section.get(key)) for key in ("cert_file", "key_file", "client_ca_file")
        )
        config = TlsConfig(
            cert_file=cert_file or Path(),
            key_file=key_file or Path(),
            client_auth_type=self._client_auth_type(section),
            client_ca_file=client_ca_file,
            min_version=self._choice(f"{name}.min_version", section.get("min_version"), VERSIONS, "TLS12"),
            max_version=self._choice(f"{name}.max_version", section.get("max_version"), VERSIONS, "TLS13"),
            cipher_suites=self._cipher_suites(section.get("cipher_suites")),
            prefer_server_cipher_suites=self._flag(
                f"{name}.prefer_server_cipher_suites",
                section.get("prefer_server_cipher_suites"),
                default=True,
            ),
        )
        if config.min_version > config.max_version:
            self._fault(f"{name}.min_version {config.min_version} is above max_version {config.max_version}")
        only_newest = config.cipher_suites and TLS13_SUITES.issuperset(config.cipher_suites)
        if only_newest and config.max_version == "TLS12":
            self._fault(f"{name}.cipher_suites holds none that max_version TLS12 could use")
        if len(self._faults) > before:
            return None
        try:
            config.context()
        except OSError as error:
            self._fault(_unusable(config, error))
        return config

    def _client_auth_type(self, section: Mapping[str, object]) -> str:
        name = "tls_server_config.client_auth_type"
        value = section.get("client_auth_type") or "NoClientCert"
        if value in ("RequireAnyClientCert", "RequireClientCert"):
            # OpenSSL through Python either verifies or does not ask; less than the file demands is no answer.
            self._fault(f"{name} {value} cannot be enforced here; use RequireAndVerifyClientCert")
            return "NoClientCert"
        chosen = self._choice(name, value, CLIENT_AUTH_TYPES, "NoClientCert")
        has_ca = bool(section.get("client_ca_file"))
        if chosen in _CA_TYPES and not has_ca:
            self._fault(f"{name} {chosen} needs tls_server_config.client_ca_file")
        if chosen == value and chosen not in _CA_TYPES and has_ca:
            self._fault(
                f"tls_server_config.client_ca_file is given, but {name} {chosen} verifies no client;"
                " use RequireAndVerifyClientCert, or leave the file out"
            )
        return chosen

    def _cipher_suites(self, value: object) -> tuple[str, ...]:
        if value is None:
            return ()
        if not isinstance(value, list):
            self._fault(f"tls_server_config.cipher_suites is {_kind(value)}; expected a list of names")
            return ()
        usable = []
        for suite in value:
            if isinstance(suite, str) and (suite in CIPHER_SUITES or suite in TLS13_SUITES):
                usable.append(suite)
            else:
                expected = ", ".join([*CIPHER_SUITES, *sorted(TLS13_SUITES)])
                self._fault(f"tls_server_config.cipher_suites: {_quoted(suite)} is not offered; expected {expected}")
        return tuple(usable)

    def _headers(self, value: object) -> dict[str, str]:
        section = self._section("http_server_config", value, ("http2", "headers"))
        # Only HTTP/1.1 is spoken, which every HTTP/2 client falls back to.
        self._flag("http_server_config.http2", section.get("http2"), default=True)
        name = "http_server_config.headers"
        headers: dict[str, str] = {}
        for header, text in self._section(name, section.get("headers"), tuple(_HEADER_VALUES)).items():
            allowed = _HEADER_VALUES[header]
            if text is None:
                headers[header] = ""
            elif not isinstance(text, str) or not _HEADER_TEXT.fullmatch(text):
                self._fault(f"{name}.{header} is not a line of printable ASCII text")
            elif text and allowed and text.lower() not in allowed:
                self._fault(f"{name}.{header} {text!r} is not allowed; expected {' or '.join(allowed)}")
            else:
                headers[header] = text
        return headers

    def _users(self, value: object) -> dict[str, str]:
        if value is None:
            return {}
        if not isinstance(value, dict):
            self._fault(f"basic_auth_users is {_kind(value)}; expected names with bcrypt hashes")
            return {}
        users: dict[str, str] = {}
        for user, hashed in value.items():
            if not isinstance(user, str) or not user or ":" in user or not _is_unicode(user):
                self._fault(
                    f"basic_auth_users: {_shown(user)} is not a user name; expected text in quotes, without a colon"
                )
            elif not isinstance(hashed, str) or not is_bcrypt_hash(hashed):
                self._fault(
                    f"basic_auth_users: the value of {_shown(user)} is not a bcrypt hash;"
                    " make one with: htpasswd -nBC 10 NAME"
                )
            elif (cost := cost_of(hashed)) > MOST_COST:
                self._fault(
                    f"basic_auth_users: the hash of {_shown(user)} has cost {cost}, so that one comparison takes"
                    f" minutes to days; at most {MOST_COST} is taken, 10 is enough: htpasswd -nBC 10 NAME"
                )
            else:
                users[user] = hashed
        return users

    def _section(self, name: str, value: object, known: tuple[str, ...]) -> dict[str, Any]:
        if value is None:
            return {}
        label = name or "the file"
        if not isinstance(value, dict):
            self._fault(f"{label} is {_kind(value)}; expected keys and values")
            return {}
        for key in value:
            if key in known:
                continue
            full = f"{name}.{_shown(key)}" if name else _shown(key)
            instead = _NOT_OFFERED[name].get(key)
            if instead:
                self._fault(f"{full} is not offered by this exporter; {instead}")
            else:
                self._fault(f"{full} is unknown; expected {', '.join(known)}")
        return {key: setting for key, setting in value.items() if key in known}

    def _file(self, name: str, value: object) -> Path | None:
        if value is None or value == "":
            return None
        if not isinstance(value, str):
            self._fault(f"{name} is {_kind(value)}; expected a path")
            return None
        path = self._folder / value
        try:
            with path.open("rb"):
                return path
        except (OSError, ValueError) as error:
            self._fault(f"{name} {path} cannot be read: {getattr(error, 'strerror', None) or 'not a path'}")
            return None

    def _choice(self, name: str, value: object, choices: Mapping[str, object], default: str) -> str:
        if value is None:
            return default
        if isinstance(value, str) and value in choices:
            return value
        self._fault(f"{name} {_quoted(value)} is not offered; expected {', '.join(choices)}")
        return default

    def _flag(self, name: str, value: object, *, default: bool) -> bool:
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self._fault(f"{name} is {_kind(value)}; expected true or false")
        return default

    def _fault(self, text: str) -> None:
        self._faults.append(text)


def _shown(key: object) -> str:
    """A key as a fault may quote it: one that looks like a hash is in the wrong place, and stays hidden."""
    if isinstance(key, str):
        return "(a hash as key)" if key.startswith("$") else key
    return f"({_kind(key)} as key)" if isinstance(key, int) and abs(key) >= _LONGEST_NUMBER else str(key)


def _quoted(value: object) -> str:
    """A value as a fault may quote it: text. A few lines of YAML can be a list of billions."""
    return repr(value) if isinstance(value, str) else f"({_kind(value)})"


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _kind(value: object) -> str:
    names = {
        dict: "a section",
        list: "a list",
        str: "text",
        bool: "true or false",
        int: "a number",
        float: "a number",
    }
    return names.get(type(value), "of another type")


def _unusable(config: TlsConfig, error: OSError) -> str:
    reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
    files = ", ".join(str(file) for file in (config.cert_file, config.key_file, config.client_ca_file) if file)
    return (
        f"tls_server_config: OpenSSL refuses {files}: {reason or 'not PEM'}; expected a PEM certificate,"
        " its unencrypted PEM key, and PEM CA certificates"
    )
