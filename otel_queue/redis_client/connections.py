"""From the configured URL to a link: redis-py connects, authenticates, speaks TLS and asks Sentinels."""

import contextlib
from typing import Any, cast

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from redis.sentinel import Sentinel

from otel_queue.config import RedisConfig
from otel_queue.redis_client.cluster import ClusterLink
from otel_queue.redis_client.node import NodeLink
from otel_queue.redis_client.requests import PlacedLink


def connect(config: RedisConfig) -> PlacedLink:
    """A link to the configured Redis. Connects at the first exchange."""
    location = config.location
    options = _connection_options(config)
    if location.topology == "cluster":
        return ClusterLink(location.nodes, options, str(location))
    if location.topology == "sentinel":
        return NodeLink(_sentinel_pool(config, options), str(location), config.connect_timeout_seconds)
    if location.topology == "unix":
        options |= {"connection_class": redis.UnixDomainSocketConnection, "path": location.path}
    else:
        host, port = location.nodes[0]
        options |= {"host": host, "port": port}
    return NodeLink(redis.ConnectionPool(**options), str(location), config.connect_timeout_seconds)


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
            "protocol": 2,
            "driver_info": None,
            "retry": Retry(NoBackoff(), 0),  # by default redis-py tries for many seconds; the next collection will
            **tls,
        },
        **options,
    )
    client = sentinel.master_for(location.master)
    return cast(redis.ConnectionPool, client.connection_pool)
