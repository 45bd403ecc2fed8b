"""Configuration: the only reader of the environment."""

from otel_queue.config.load import (
    export_interval_seconds,
    load_config,
    otlp_protocol,
    otlp_wanted,
    parse_listen,
)
from otel_queue.config.secret import Secret
from otel_queue.config.settings import (
    Config,
    LedgerConfig,
    OtlpConfig,
    PostgresConfig,
    QueueConfig,
    RedisConfig,
    ServerConfig,
)

__all__ = [
    "Config",
    "LedgerConfig",
    "OtlpConfig",
    "PostgresConfig",
    "QueueConfig",
    "RedisConfig",
    "Secret",
    "ServerConfig",
    "export_interval_seconds",
    "load_config",
    "otlp_protocol",
    "otlp_wanted",
    "parse_listen",
]
