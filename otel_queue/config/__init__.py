"""Configuration: the only reader of the environment."""

from otel_queue.config.load import load_config, parse_listen, unknown_variables
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
from otel_queue.config.standard_variables import (
    export_interval_seconds,
    export_timeout_seconds,
    otlp_protocol,
    otlp_wanted,
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
    "export_timeout_seconds",
    "load_config",
    "otlp_protocol",
    "otlp_wanted",
    "parse_listen",
    "unknown_variables",
]
