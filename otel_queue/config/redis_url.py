"""Redis URLs: what each form means, and what is wrong with one that cannot be used."""

from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit

from otel_queue.config.secret import Secret
from otel_queue.errors import ConfigError

Topology = Literal["standalone", "unix", "sentinel", "cluster"]

_SCHEMES: Final[dict[str, tuple[Topology, bool]]] = {
    "redis": ("standalone", False),
    "rediss": ("standalone", True),
    "unix": ("unix", False),
    "redis-socket": ("unix", False),
    "redis-sentinel": ("sentinel", False),
    "rediss-sentinel": ("sentinel", True),
    "redis-cluster": ("cluster", False),
    "rediss-cluster": ("cluster", True),
}
_DEFAULT_PORT: Final[dict[Topology, int]] = {"standalone": 6379, "sentinel": 26379, "cluster": 6379}

_MOST_DIGITS: Final = 10
_MISPLACED: Final = (
    "there is an @ behind the host: what is special in a user name or password must be percent-encoded",
    "a unix socket has no host, and what is special in a password or behind one must be percent-encoded",
)

FORMS: Final = (
    "redis://[user:password@]host[:port][/db], rediss:// for TLS, unix:///path/to.sock[?db=N], "
    "redis-sentinel://[:sentinel-password@]host:port,host:port[/db]?master=NAME, "
    "redis-cluster://[user:password@]host:port,host:port"
)


@dataclass(frozen=True, slots=True, repr=False)
class RedisUrl:
    """Where Redis is, and who we are there; only `reveal` shows the latter, not str, repr and format.

    In the Sentinel form the credentials are those of the Sentinels, as in asynq's URLs.
    """

    topology: Topology
    tls: bool
    nodes: tuple[tuple[str, int], ...] = ()
    path: str = ""
    database: int = 0
    master: str = ""
    username: str | None = None
    password: Secret | None = None
    _text: Secret = field(default=Secret(""), compare=False)

    def reveal(self) -> str:
        """The URL as it was given, for a client that takes one."""
        return self._text.reveal()

    def __str__(self) -> str:
        """The URL without its credentials, fit for a page or a log."""
        scheme = next(name for name, kind in _SCHEMES.items() if kind == (self.topology, self.tls))
        if self.topology == "unix":
            return f"{scheme}://{self.path}?db={self.database}"
        hosts = ",".join(f"[{host}]:{port}" if ":" in host else f"{host}:{port}" for host, port in self.nodes)
        suffix = "" if self.topology == "cluster" else f"/{self.database}"
        return f"{scheme}://{hosts}{suffix}" + (f"?master={self.master}" if self.master else "")

    def __repr__(self) -> str:
        return f"RedisUrl('{self}')"


def parse_redis_url(url: str, setting: str = "redis.url") -> RedisUrl:
    """The parts of `url`; raises ConfigError, which names the `setting` and never repeats the credentials.

    Nor what may be a part of them: with a / or ? in the password, the rest of it stands where a database should.
    """
    scheme, separator, rest = url.partition("://")
    if not separator or scheme not in _SCHEMES:
        is_scheme = separator and not set(":@/") & set(scheme)
        raise ConfigError([f"{setting}: unknown form {scheme if is_scheme else '(no scheme)'!r}; use {FORMS}"])
    topology, tls = _SCHEMES[scheme]
    # urlsplit knows one host only: the list of hosts is cut out by hand.
    authority, path_mark, path_and_query = rest.partition("/")
    if not path_mark and "?" in authority:
        authority, _, query_only = authority.partition("?")
        path_and_query = "?" + query_only
    credentials, _, hosts = authority.rpartition("@")
    split = urlsplit("x://x/" + path_and_query)
    # The name of a socket may well have an @, but nothing is in front of it then.
    if hosts or "@" in split.query if topology == "unix" and not credentials else "@" in path_and_query:
        raise ConfigError([f"{setting}: {_MISPLACED[topology == 'unix']}; use {FORMS}"])
    query = {name: values[-1] for name, values in parse_qs(split.query).items()}
    faults: list[str] = []
    if unknown := sorted(set(query) - {"db", "master"}):
        faults.append(f"{setting}: unknown parameters {', '.join(unknown)}; known are db and master")
    username, _, password = credentials.partition(":")
    path = split.path.strip("/")
    database_text = query.get("db", "0" if topology == "unix" else path or "0")
    if not (database_text.isascii() and database_text.isdecimal() and len(database_text) < _MOST_DIGITS):
        faults.append(f"{setting}: the database must be a number, not {database_text!r}")
        database_text = "0"
    nodes = () if topology == "unix" else _nodes(hosts, _DEFAULT_PORT[topology], setting, faults)
    if topology == "unix" and not path:
        faults.append(f"{setting}: a unix socket needs a path, as in unix:///run/redis/redis.sock")
    if topology == "standalone" and len(nodes) > 1:
        faults.append(f"{setting}: several hosts need redis-sentinel:// or redis-cluster://")
    if topology == "sentinel" and not query.get("master"):
        faults.append(f"{setting}: a Sentinel URL needs ?master=NAME")
    if topology == "cluster" and int(database_text) != 0:
        faults.append(f"{setting}: Redis Cluster has only database 0")
    if faults:
        raise ConfigError(faults)
    return RedisUrl(
        topology=topology,
        tls=tls,
        nodes=nodes,
        path="/" + unquote(path) if topology == "unix" else "",
        database=int(database_text),
        master=query.get("master", ""),
        username=unquote(username) or None,
        password=Secret(unquote(password)) if password else None,
        _text=Secret(url),
    )


def _nodes(hosts: str, default_port: int, setting: str, faults: list[str]) -> tuple[tuple[str, int], ...]:
    nodes: list[tuple[str, int]] = []
    for place, part in enumerate(hosts.split(","), start=1):
        try:
            split = urlsplit("//" + part.strip())
            if split.port == 0 or split.query or split.fragment:
                raise ValueError
            nodes.append((split.hostname or "127.0.0.1", split.port or default_port))
        except ValueError:
            # Without an @ the text may be a name and a password.
            faults.append(f"{setting}: number {place} of its hosts is not host:port, with a port from 1 to 65535")
    return tuple(nodes)
