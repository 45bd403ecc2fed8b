"""TLS for the listener, with certificates that are picked up again when their files change."""

import logging
import ssl
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_log: Final = logging.getLogger(__name__)

VERSIONS: Final = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}

# RequestClientCert lets every client in, with a certificate or without: the same as not asking for one.
CLIENT_AUTH_TYPES: Final = {
    "NoClientCert": ssl.CERT_NONE,
    "RequestClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}

# Go's names, as the web config file has them, to OpenSSL's. TLS 1.3 suites are always on, in Go as here.
CIPHER_SUITES: Final = {
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256": "ECDHE-ECDSA-AES128-GCM-SHA256",
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384": "ECDHE-ECDSA-AES256-GCM-SHA384",
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_ECDHE_ECDSA_WITH_AES_128_CBC_SHA": "ECDHE-ECDSA-AES128-SHA",
    "TLS_ECDHE_ECDSA_WITH_AES_256_CBC_SHA": "ECDHE-ECDSA-AES256-SHA",
    "TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256": "ECDHE-RSA-AES128-GCM-SHA256",
    "TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384": "ECDHE-RSA-AES256-GCM-SHA384",
    "TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256": "ECDHE-RSA-CHACHA20-POLY1305",
    "TLS_ECDHE_RSA_WITH_AES_128_CBC_SHA": "ECDHE-RSA-AES128-SHA",
    "TLS_ECDHE_RSA_WITH_AES_256_CBC_SHA": "ECDHE-RSA-AES256-SHA",
}
TLS13_SUITES: Final = frozenset({"TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256"})


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """What the server offers and asks of its clients.

    `cipher_suites` are Go's names; empty means OpenSSL's choice.
    """

    cert_file: Path
    key_file: Path
    client_auth_type: str = "NoClientCert"
    client_ca_file: Path | None = None
    min_version: str = "TLS12"
    max_version: str = "TLS13"
    cipher_suites: tuple[str, ...] = ()
    prefer_server_cipher_suites: bool = True

    def context(self) -> ssl.SSLContext:
        """A context whose later handshakes use the files as they are then.

        Raises OSError (ssl.SSLError included) when the files cannot be read or do not fit together.
        """
        context = self._load()
        context.sni_callback = _Renewal(self, context)  # called in every handshake, with or without a server name
        return context

    def _load(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = VERSIONS[self.min_version]
        context.maximum_version = VERSIONS[self.max_version]
        if not self.prefer_server_cipher_suites:
            context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
        older = [CIPHER_SUITES[name] for name in self.cipher_suites if name in CIPHER_SUITES]
        if older:
            context.set_ciphers(":".join(older))
        elif self.cipher_suites:
            context.minimum_version = ssl.TLSVersion.TLSv1_3
        # Without a callback OpenSSL asks for an encrypted key's password on the terminal, and waits there.
        context.load_cert_chain(self.cert_file, self.key_file, password=lambda: "")
        if self.client_ca_file is not None:
            context.load_verify_locations(self.client_ca_file)
        context.verify_mode = CLIENT_AUTH_TYPES[self.client_auth_type]
        return context

    def _stamp(self) -> tuple[tuple[int, int, int], ...]:
        files = [self.cert_file, self.key_file, *([self.client_ca_file] if self.client_ca_file else [])]
        return tuple((stat.st_ino, stat.st_size, stat.st_mtime_ns) for stat in (file.stat() for file in files))


class _Renewal:
    """Gives each handshake a context that holds the newest certificates that could be loaded."""

    def __init__(self, config: TlsConfig, first: ssl.SSLContext) -> None:
        self._config = config
        self._first = self._newest = first
        self._stamp = config._stamp()

    def __call__(self, connection: ssl.SSLObject, _server_name: str | None, _context: ssl.SSLContext) -> None:
        try:
            stamp = self._config._stamp()
            if stamp != self._stamp:
                self._stamp = stamp
                self._newest = self._config._load()
                _log.info("TLS certificates were loaded anew from %s", self._config.cert_file)
        except OSError as error:  # a renewal may be half done: the next handshake looks again
            _log.warning("TLS certificates changed and cannot be loaded, the old ones stay in use: %s", error)
        if self._newest is not self._first:
            connection.context = self._newest
