"""Configuration: the only reader of the environment."""

from otel_queue.config.load import (
    export_interval_seconds,
    load_config,
    otlp_protocol,
    otlp_wanted,
    parse_listen,
    unknown_variables,
)
from otel_queue.config.secret import Secret
from otel_queue.config.settings import (
    DOMAIN_METRICS,
    SOURCES,
    Config,
    DomainConfig,
    LedgerConfig,
    MetricConfig,
    OtlpConfig,
    PostgresConfig,
    QueueConfig,
    RedisConfig,
    ServerConfig,
    Sources,
)

__all__ = [
    "DOMAIN_METRICS",
    "SOURCES",
    "Config",
    "DomainConfig",
    "LedgerConfig",
    "MetricConfig",
    "OtlpConfig",
    "PostgresConfig",
    "QueueConfig",
    "RedisConfig",
    "Secret",
    "ServerConfig",
    "Sources",
    "export_interval_seconds",
    "load_config",
    "otlp_protocol",
    "otlp_wanted",
    "parse_listen",
    "unknown_variables",
]
