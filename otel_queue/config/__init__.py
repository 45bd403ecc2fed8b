"""Configuration: the only reader of the environment."""

from otel_queue.config.load import load_config, parse_listen
from otel_queue.config.opentelemetry import OpenTelemetryConfig, Remark
from otel_queue.config.secret import Secret
from otel_queue.config.settings import (
    DOMAIN_METRICS,
    SOURCES,
    Config,
    DomainConfig,
    FollowConfig,
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
    "FollowConfig",
    "LedgerConfig",
    "MetricConfig",
    "OpenTelemetryConfig",
    "OtlpConfig",
    "PostgresConfig",
    "QueueConfig",
    "RedisConfig",
    "Remark",
    "Secret",
    "ServerConfig",
    "Sources",
    "load_config",
    "parse_listen",
]
