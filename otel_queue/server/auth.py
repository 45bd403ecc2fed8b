"""Basic authentication against bcrypt hashes."""

import base64
import binascii
import hashlib
import secrets
import threading
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from typing import Final

import bcrypt

# bcrypt reads no further; htpasswd and Go's bcrypt cut here in silence, the Python package raises instead.
_PASSWORD_BYTES: Final = 72
_REMEMBERED: Final = 64
# Seconds for a comparison, and twice as many with each step: a stranger may ask for one with every request.
MOST_COST: Final = 16
_ALPHABET: Final = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"


class BasicAuth:
    """Decides on Authorization headers; `users` maps a name to its bcrypt hash.

    Credentials that were right once are remembered as a keyed digest: a scraper pays for bcrypt once only.
    """

    def __init__(self, users: Mapping[str, str]) -> None:
        self._hashes = {name.encode(): hashed.encode() for name, hashed in users.items()}
        self._nobody = _hash_of_nobody(self._hashes.values())
        self._key = secrets.token_bytes(32)
        self._remembered: OrderedDict[bytes, None] = OrderedDict()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"BasicAuth({len(self._hashes)} users)"

    def remembers(self, authorization_header: str | None) -> bool:
        """Whether these credentials were found right before. Cheap, fit for the event loop."""
        credentials = _parse(authorization_header)
        return credentials is not None and self._is_remembered(self._digest(*credentials))

    def allows(self, authorization_header: str | None) -> bool:
        """Whether the header names a user with the right password.

        Costs a bcrypt comparison (tens of milliseconds) unless remembered, for an unknown user as well: the time
        does not tell which names exist.
        """
        credentials = _parse(authorization_header)
        if credentials is None:
            return False
        digest = self._digest(*credentials)
        if self._is_remembered(digest):
            return True
        user, password = credentials
        matches = _matches(password, self._hashes.get(user, self._nobody)) and user in self._hashes
        if matches:
            self._remember(digest)
        return matches

    def _digest(self, user: bytes, password: bytes) -> bytes:
        text = len(user).to_bytes(4, "big") + user + password
        return hashlib.blake2b(text, key=self._key, digest_size=32).digest()

    def _is_remembered(self, digest: bytes) -> bool:
        with self._lock:
            if digest not in self._remembered:
                return False
            self._remembered.move_to_end(digest)
            return True

    def _remember(self, digest: bytes) -> None:
        with self._lock:
            self._remembered[digest] = None
            while len(self._remembered) > _REMEMBERED:
                self._remembered.popitem(last=False)


def is_bcrypt_hash(text: str) -> bool:
    """Whether bcrypt can compare a password with `text`, found out at bcrypt's lowest cost."""
    parts = text.split("$")
    if len(parts) != 4 or parts[0] or parts[1] not in ("2a", "2b", "2y") or len(parts[3]) != 53:
        return False
    if not (len(parts[2]) == 2 and parts[2].isascii() and parts[2].isdigit() and 4 <= int(parts[2]) <= 31):
        return False
    if not set(parts[3]) <= set(_ALPHABET):
        return False
    try:
        bcrypt.hashpw(b"", f"$2b$04${parts[3][:22]}".encode())
    except ValueError:
        return False
    return True


def cost_of(hashed: str) -> int:
    """The cost of a bcrypt hash: a comparison takes 2 to that power rounds."""
    return int(hashed.split("$")[2])


def _parse(header: str | None) -> tuple[bytes, bytes] | None:
    """User and password, or None where the header is not of the Basic scheme or cannot be decoded."""
    scheme, _, encoded = (header or "").partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        user, colon, password = base64.b64decode(encoded.strip(), validate=True).partition(b":")
    except (binascii.Error, ValueError):
        return None
    return (user, password) if colon else None


def _matches(password: bytes, hashed: bytes) -> bool:
    try:
        return bcrypt.checkpw(password[:_PASSWORD_BYTES], hashed)
    except ValueError:  # some versions of the package refuse a NUL byte
        return False


def _hash_of_nobody(hashes: Iterable[bytes]) -> bytes:
    """A hash that costs as much as the dearest of `hashes`, and whose password nobody knows."""
    cost = max((cost_of(hashed.decode()) for hashed in hashes), default=10)
    checksum = "".join(secrets.choice(_ALPHABET) for _ in range(31))
    return bcrypt.gensalt(cost) + checksum.encode()
