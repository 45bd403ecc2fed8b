"""Connections to Redis, and the one way in which this package reads: many packed commands, one round trip.

redis-py connects, authenticates, speaks TLS and finds masters and cluster nodes. The exchange itself goes
past its command layer: requests are joined as bytes and the replies are parsed by hiredis in place, because
the commands are the same at every collection and a client object per command would cost most of the time.

Reasons in `ReadError.reason` and for `ErrorReply`: auth, permission, connection, timeout, loading, readonly,
wrong_type, aborted, moved, cluster_down, master_down, not_supported, error_reply, protocol.
"""

import contextlib
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, cast

import hiredis
import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, NodesManager
from redis.crc import key_slot
from redis.exceptions import NoPermissionError, RedisClusterException, SlotNotCoveredError
from redis.retry import Retry
from redis.sentinel import MasterNotFoundError, Sentinel

from otel_queue.config import RedisConfig
from otel_queue.errors import ReadError

# A reply as hiredis gives it: bytes, int, None, list of those, or an ErrorReply. Parsed where it is used.
Reply = Any
ErrorReply = hiredis.ReplyError

# A caller that stops early closes it, for the connection is its own until then.
Answers = Generator[list[Reply] | ReadError, None, None]

# redis-py's cluster errors are no RedisError. hiredis raises TypeError for a map with a list for a key and
# MemoryError for an array of billions.
_CLIENT_ERRORS: Final = (
    redis.RedisError,
    RedisClusterException,
    OSError,
    hiredis.HiredisError,
    TypeError,
    MemoryError,
)
_READ_SIZE: Final = 1 << 16
_NOT_YET: Final = object()
# hiredis takes any sequence of words, and any buffer; its type stubs are narrower.
_pack: Final[Callable[..., bytes]] = hiredis.pack_command

_REASON_BY_PREFIX: Final = {
    "NOAUTH": "auth",
    "WRONGPASS": "auth",
    "NOPERM": "permission",
    "LOADING": "loading",
    "READONLY": "readonly",
    "WRONGTYPE": "wrong_type",
    "EXECABORT": "aborted",
    "MOVED": "moved",
    "ASK": "moved",
    "CLUSTERDOWN": "cluster_down",
    "TRYAGAIN": "cluster_down",
    "MASTERDOWN": "master_down",
}


class Request(NamedTuple):
    """Packed commands of one hash slot, answered by `replies` replies. `key` routes it in a cluster."""

    key: bytes
    packed: bytes
    replies: int


class RedisReader(Protocol):
    """Reads many requests in one round trip (one per cluster node)."""

    def read(self, requests: Sequence[Request], deadline: float) -> Answers:
        """The replies to each request, in order, each as soon as it has arrived.

        All requests are sent before the first answer is returned. `deadline` is in `time.monotonic` seconds. A
        ReadError stands in for the replies of a request whose node could not be read. Raises ReadError when
        nothing more can be read.
        """
        ...

    def close(self) -> None:
        """Ends all connections; a later read opens new ones."""
        ...


def pack(*words: bytes | str | int) -> bytes:
    """One command in Redis's wire format."""
    return _pack(words)


def request(key: bytes, commands: Iterable[tuple[bytes | str | int, ...]]) -> Request:
    """The commands as one request. All their keys must share the slot of `key`."""
    packed = [_pack(words) for words in commands]
    return Request(key, b"".join(packed), len(packed))


def reply_reason(reply: Exception) -> str:
    """Why Redis refused a command, as one word from the bounded set."""
    text = str(reply)
    known = _REASON_BY_PREFIX.get(text.split(" ", 1)[0])
    if known:
        return known
    return "not_supported" if "unknown command" in text or "not allowed" in text else "error_reply"


def connect(config: RedisConfig) -> RedisReader:
    """A reader for the configured Redis. Connects at the first read. Raises ConfigError for a bad URL."""
    location = config.location
    options = _connection_options(config)
    if location.topology == "cluster":
        return _ClusterReader(location.nodes, options, str(location))
    if location.topology == "sentinel":
        return _NodeReader(_sentinel_pool(config, options), str(location))
    if location.topology == "unix":
        options |= {"connection_class": redis.UnixDomainSocketConnection, "path": location.path}
    else:
        host, port = location.nodes[0]
        options |= {"host": host, "port": port}
    return _NodeReader(redis.ConnectionPool(**options), str(location))


def _connection_options(config: RedisConfig) -> dict[str, Any]:
    location = config.location
    # In the Sentinel form the URL's credentials belong to the Sentinels.
    own = location.topology != "sentinel"
    password = config.password or (location.password if own else None)
    options: dict[str, Any] = {
        "db": location.database,
        "username": config.username or (location.username if own else None),
        "password": password.reveal() if password else None,
        "protocol": 2,  # hiredis gives RESP2 replies below; RESP3 needs HELLO, which old servers lack
        "socket_connect_timeout": config.connect_timeout_seconds,
        "socket_timeout": config.connect_timeout_seconds,  # for the handshake; reads set their own
        "driver_info": None,  # CLIENT SETINFO would need one more permission
    }
    if location.tls:
        options |= {
            "connection_class": redis.SSLConnection,
            "ssl_ca_certs": _text(config.tls_ca_file),
            "ssl_certfile": _text(config.tls_cert_file),
            "ssl_keyfile": _text(config.tls_key_file),
            "ssl_cert_reqs": "none" if config.tls_skip_verify else "required",
            "ssl_check_hostname": not config.tls_skip_verify,
            "redis_connect_func": _greet_over_tls,
        }
    return options


def _greet_over_tls(connection: Any) -> None:
    """Reads a first reply, whatever it is, and with it what TLS 1.3 sends after its handshake.

    redis-py looks whether a connection has something to read before it hands it out, and refuses one with session
    tickets still unread.
    """
    connection.on_connect()
    connection.send_command("PING", check_health=False)
    with contextlib.suppress(redis.ResponseError):  # no permission for PING is needed
        connection.read_response()


def _text(path: object) -> str | None:
    return None if path is None else str(path)


def _sentinel_pool(config: RedisConfig, options: dict[str, Any]) -> redis.ConnectionPool:
    location = config.location
    password = config.sentinel_password or location.password
    tls = {name: value for name, value in options.items() if name.startswith(("ssl_", "redis_connect_func"))}
    if options.pop("connection_class", None) is not None:
        options["ssl"] = tls["ssl"] = True
    timeout = config.connect_timeout_seconds
    sentinel = Sentinel(
        list(location.nodes),
        sentinel_kwargs={
            "username": config.sentinel_username or location.username,
            "password": password.reveal() if password else None,
            "socket_timeout": timeout,
            "socket_connect_timeout": timeout,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),  # by default redis-py tries for many seconds; the next collection will
            **tls,
        },
        **options,
    )
    client = sentinel.master_for(location.master)
    return cast(redis.ConnectionPool, client.connection_pool)


class _NodeReader:
    """Reads one server: standalone, over a Unix socket, or the master that Sentinel names."""

    def __init__(self, pool: redis.ConnectionPool, name: str) -> None:
        self._pool = pool
        self._name = name
        self._lock = threading.Lock()

    def read(self, requests: Sequence[Request], deadline: float) -> Answers:
        with self._lock:
            connection = self._connected()
            try:
                yield from exchange(socket_of(connection), requests, deadline)
            except BaseException as error:
                # Replies may still arrive, or the caller wants no more of them: this connection is spent.
                connection.disconnect()
                if isinstance(error, _CLIENT_ERRORS):
                    raise _as_read_error(self._name, error) from error
                raise
            finally:
                self._pool.release(connection)

    def _connected(self) -> Any:
        try:
            return self._pool.get_connection()
        except _CLIENT_ERRORS as error:
            self._pool.disconnect()  # what broke in its handshake must not be taken for ready later
            raise _as_read_error(self._name, error) from error

    def close(self) -> None:
        self._pool.disconnect()


class _ClusterReader:
    """Reads a Redis Cluster: one round trip per node, after one more when slots have moved."""

    def __init__(self, nodes: Sequence[tuple[str, int]], options: dict[str, Any], name: str) -> None:
        self._startup = nodes
        # A cluster's client takes `ssl` instead of a connection class, and no database.
        self._options = {key: value for key, value in options.items() if key != "db"}
        self._options["require_full_coverage"] = False  # a slot that nobody serves costs its queues only
        if self._options.pop("connection_class", None) is not None:
            self._options["ssl"] = True
        self._name = name
        # Knows the slots. RedisCluster would also ask a node picked at random for COMMAND, which needs one more
        # permission, and may be the node that does not answer.
        self._cluster: NodesManager | None = None
        self._readers: dict[str, _NodeReader] = {}
        self._failing: set[str] = set()  # nodes that could not be read last time; asked after the others

    def read(self, requests: Sequence[Request], deadline: float) -> Answers:
        results = self._read_once(requests, deadline)
        stale = [index for index, result in enumerate(results) if _moved(result)]
        if stale:
            self._forget_topology()
            again = self._read_once([requests[index] for index in stale], deadline)
            for index, result in zip(stale, again, strict=True):
                results[index] = result
        failures = [result for result in results if isinstance(result, ReadError)]
        if failures:
            self._forget_topology()  # a node may have failed over: ask the others
        if failures and len(failures) == len(results):
            raise failures[0]
        yield from results

    def _read_once(self, requests: Sequence[Request], deadline: float) -> list[list[Reply] | ReadError]:
        cluster = self._topology()
        by_node: dict[str, list[int]] = {}
        nodes: dict[str, ClusterNode] = {}
        results: list[list[Reply] | ReadError] = [ReadError("cluster_down", "no node serves the slot")] * len(
            requests
        )
        for index, item in enumerate(requests):
            try:
                node = cluster.get_node_from_slot(key_slot(item.key))
            except _CLIENT_ERRORS as error:
                results[index] = _as_read_error(self._name, error)
                continue
            nodes[node.name] = node
            by_node.setdefault(node.name, []).append(index)
        for name in sorted(by_node, key=self._failing.__contains__):
            indexes = by_node[name]
            reader = self._reader(nodes[name])
            # A node that does not answer may take half of what is left, so that the others are read.
            until = deadline if len(by_node) == 1 else (time.monotonic() + deadline) / 2
            try:
                parts = list(reader.read([requests[index] for index in indexes], until))
                self._failing.discard(name)
            except ReadError as error:
                parts = [error] * len(indexes)
                self._failing.add(name)
            for index, part in zip(indexes, parts, strict=True):
                results[index] = part
        return results

    def _topology(self) -> NodesManager:
        if self._cluster is None:
            nodes = [ClusterNode(host, port) for host, port in self._startup]
            nodes.sort(key=lambda node: node.name in self._failing)
            try:
                self._cluster = NodesManager(startup_nodes=nodes, **self._options)
            except _CLIENT_ERRORS as error:
                raise _as_read_error(self._name, error) from error
        return self._cluster

    def _reader(self, node: ClusterNode) -> _NodeReader:
        if node.name not in self._readers:
            assert self._cluster is not None
            self._cluster.create_redis_connections([node])
            pool = cast(redis.Redis, node.redis_connection).connection_pool
            self._readers[node.name] = _NodeReader(pool, node.name)
        return self._readers[node.name]

    def _forget_topology(self) -> None:
        self.close()

    def close(self) -> None:
        self._readers.clear()
        if self._cluster is not None:
            self._cluster.close()
            self._cluster = None


def _moved(result: list[Reply] | ReadError) -> bool:
    return not isinstance(result, ReadError) and any(
        isinstance(reply, ErrorReply) and reply_reason(reply) == "moved" for reply in result
    )


def socket_of(connection: Any) -> Any:
    """The connected socket. redis-py has no public way to it, so this is the one place that knows."""
    return connection._get_socket()


def exchange(sock: Any, requests: Sequence[Request], deadline: float) -> Iterator[list[Reply]]:
    """Sends all requests, then returns the replies to each; raises OSError (TimeoutError too) or HiredisError.

    Redis reads all it is sent before it stops to answer, so sending first cannot lock up. Answers are handed out
    while Redis still works on the rest.
    """
    sock.settimeout(_remaining(deadline))
    sock.sendall(b"".join([item.packed for item in requests]))
    reader: Any = hiredis.Reader(notEnoughData=_NOT_YET)
    buffer = bytearray(_READ_SIZE)
    for item in requests:
        replies: list[Reply] = []
        for _ in range(item.replies):
            while (reply := reader.gets()) is _NOT_YET:
                sock.settimeout(_remaining(deadline))
                size = sock.recv_into(buffer)
                if not size:
                    raise ConnectionResetError("the server closed the connection in the middle of its replies")
                reader.feed(buffer, 0, size)
            replies.append(reply)
        yield replies
    if reader.has_data():
        raise hiredis.ProtocolError("more replies than commands")


def _remaining(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the time for this collection is used up")
    return left


def _as_read_error(name: str, error: BaseException) -> ReadError:
    while isinstance(error, RedisClusterException) and (cause := error.__cause__ or error.__context__):
        error = cause  # why the last of the nodes could not be asked
    if isinstance(error, MasterNotFoundError):
        return _no_master(name, str(error))
    return ReadError(_reason(error), f"{name}: {error or type(error).__name__}")


def _no_master(name: str, words: str) -> ReadError:
    """Only the causes: redis-py shows each Sentinel's client whole, in some versions with its password."""
    found, _, sentinels = words.partition(" : ")
    causes = sorted({each.rpartition("> - ")[2] for each in sentinels.split(", <redis.")} - {""})
    reason = "auth" if any("AuthenticationError" in cause for cause in causes) else "connection"
    return ReadError(reason, f"{name}: {found}{'; the Sentinels: ' if causes else ''}{', '.join(causes)}")


# redis-py's errors at connecting, when it has taken the prefix off Redis's words.
_REASON_BY_ERROR: Final[tuple[tuple[type[BaseException], str], ...]] = (
    (SlotNotCoveredError, "cluster_down"),
    (redis.AuthenticationError, "auth"),
    (NoPermissionError, "permission"),
    (redis.TimeoutError, "timeout"),
    (TimeoutError, "timeout"),
    (redis.BusyLoadingError, "loading"),
    (redis.InvalidResponse, "protocol"),
    (hiredis.HiredisError, "protocol"),
    (TypeError, "protocol"),
    (MemoryError, "protocol"),
)


def _reason(error: BaseException) -> str:
    for kind, reason in _REASON_BY_ERROR:
        if isinstance(error, kind):
            return reason
    return reply_reason(error) if isinstance(error, redis.ResponseError) else "connection"
