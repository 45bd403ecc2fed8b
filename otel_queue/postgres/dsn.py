"""Where the database is: libpq's connection string, and what may be shown of it."""

from typing import Final

from otel_queue.config.secret import Secret
from otel_queue.errors import ConfigError
from otel_queue.postgres.driver import psycopg

_FORMS: Final = (
    "use postgres://user:password@host[:port]/database with what is special in the password percent-encoded, "
    "or host=... dbname=... user=... password='...'"
)
_SECRETS: Final = ("password", "sslpassword", "oauth_client_secret")


class Dsn:
    """A parsed connection string. str and repr show host, port and database only.

    Raises ConfigError for a string that cannot be used, without repeating any of it: what looks like a host may be
    the rest of a password with an @ in it. What the string leaves open libpq takes from its own variables and files.
    """

    __slots__ = ("_parameters",)

    def __init__(self, text: Secret) -> None:
        parameters = _parse(text.reveal())
        ports = parameters.get("port", "").split(",")
        suspects = (parameters.get("host", ""), parameters.get("dbname", ""))
        misread = any("@" in part for part in suspects) or any(
            port and not (port.isascii() and port.isdecimal()) for port in ports
        )
        if parameters == {} or misread:
            raise ConfigError([f"postgres.dsn: not a PostgreSQL connection string; {_FORMS}"])
        self._parameters = parameters

    @property
    def parameters(self) -> dict[str, str]:
        """The parameters as libpq names them, secrets included."""
        return dict(self._parameters)

    def hide(self, text: str) -> str:
        """The text without the secrets of this connection string."""
        for name in _SECRETS:
            if secret := self._parameters.get(name):
                text = text.replace(secret, "***")
        return text

    def __str__(self) -> str:
        shown = self._parameters
        host = shown.get("host") or shown.get("hostaddr") or "local"
        return f"postgres://{host}:{shown.get('port') or 5432}/{shown.get('dbname', '')}"

    def __repr__(self) -> str:
        return f"Dsn({self})"


def _parse(text: str) -> dict[str, str]:
    if "\0" in text:
        return {}  # libpq would stop there
    try:
        return {name: str(value) for name, value in psycopg.conninfo.conninfo_to_dict(text).items()}
    except (psycopg.Error, UnicodeError):
        return {}  # its words quote the string
